#include "intercept/device/default_route.hh"

#include <cstdint>
#include <fstream>
#include <iterator>
#include <sstream>

namespace mtcp::intercept {
namespace {

// linux/route.h
constexpr unsigned long kUp = 0x1, kReject = 0x200;

bool leads_somewhere(unsigned long flags) { return (flags & kUp) != 0 && (flags & kReject) == 0; }

struct Best {
  std::string interface;
  unsigned long metric = UINT64_MAX;
  void take(const std::string& name, unsigned long its) {
    if (!interface.empty() && its >= metric) return;
    interface = name;
    metric = its;
  }
};

std::string of_ipv4(std::string_view routes) {
  Best best;
  std::istringstream lines{std::string(routes)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name, destination, gateway, mask;
    unsigned long flags = 0, references = 0, use = 0, metric = 0;
    if (!(words >> name >> destination >> gateway >> std::hex >> flags >> std::dec >> references >> use >> metric >> mask)) continue;
    if (destination == "00000000" && mask == "00000000" && leads_somewhere(flags)) best.take(name, metric);
  }
  return best.interface;
}

std::string of_ipv6(std::string_view routes) {
  Best best;
  const std::string all(32, '0');
  std::istringstream lines{std::string(routes)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string destination, length, source, source_length, gateway, name;
    unsigned long metric = 0, references = 0, use = 0, flags = 0;
    words >> destination >> length >> source >> source_length >> gateway >> std::hex >> metric >> references >> use >> flags >> name;
    if (words && destination == all && length == "00" && name != "lo" && leads_somewhere(flags)) best.take(name, metric);
  }
  return best.interface;
}

std::string contents(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::string default_interface(std::string_view ipv4_routes, std::string_view ipv6_routes) {
  std::string found = of_ipv4(ipv4_routes);
  return found.empty() ? of_ipv6(ipv6_routes) : found;
}

void settle_port(Options& options) {
  if (!options.device.is_automatic()) return;
  const std::string interface = default_interface(contents("/proc/net/route"), contents("/proc/net/ipv6_route"));
  if (!interface.empty()) options.device.port = "net_af_xdp0,iface=" + interface + ",share=kernel";
}

}  // namespace mtcp::intercept
