#include "conf/check_device.hh"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

#include "conf/text.hh"

namespace mtcp::conf {
namespace {

// The drivers that the engine is built with, without a number; those for PCI cards are chosen by the card.
constexpr std::array<std::string_view, 9> kDrivers{"net_af_packet", "net_af_xdp",      "net_memif",
                                                   "net_null",      "net_ring",        "net_virtio_user",
                                                   "net_vdev_netvsc", "net_failsafe", "eth_af_packet"};
// Stacks, and so queues, that can share one device: stack/steering/control_block.hh.
constexpr std::uint32_t kMostShared = 64;

bool is_pci_address(std::string_view name) {
  return name.size() >= 7 && name[name.size() - 2] == '.' && name[name.size() - 5] == ':' &&
         std::ranges::all_of(name, [](unsigned char c) { return std::isxdigit(c) != 0 || c == ':' || c == '.'; });
}

// "net_memif{worker}" and "net_memif0" are net_memif.
std::string_view driver_of(std::string_view name) {
  name = name.substr(0, name.find('{'));
  while (!name.empty() && std::isdigit(static_cast<unsigned char>(name.back())) != 0) name.remove_suffix(1);
  return name;
}

std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }

std::string what_is_wrong(std::string_view port) {
  const std::string_view name = port.substr(0, port.find(','));
  if (is_pci_address(name) || port == "auto") return {};
  const std::string_view driver = driver_of(name);
  if (!name.starts_with("net_") && !name.starts_with("eth_")) {
    return quoted(port) + " is neither a device string nor a PCI address; an interface of the kernel is written " +
           quoted("net_af_packet0,iface=" + std::string(name)) + ", a card " + quoted("0000:00:04.0");
  }
  if (std::ranges::find(kDrivers, driver) == kDrivers.end()) {
    const auto* const near = std::ranges::min_element(kDrivers, {}, [&](auto d) { return distance(driver, d); });
    std::string all;
    for (const std::string_view d : kDrivers) all += (all.empty() ? "" : ", ") + std::string(d);
    const std::string meant = std::string(*near) + std::string(name.substr(driver.size()));
    return "there is no driver for " + std::string(name) +
           (distance(driver, *near) <= 3 ? " (did you mean " + meant + "?)" : " (there are: " + all + ")");
  }
  const bool of_kernel = driver.ends_with("_af_packet") || driver == "net_af_xdp";
  if (of_kernel && port.find(",iface=") == port.npos)
    return quoted(port) + " names no interface: expected " + quoted(std::string(name) + ",iface=NAME");
  return {};
}

}  // namespace

void check_device(const intercept::Options& options, const Places& places, Problems& problems) {
  const auto& device = options.device;
  const auto say = [&](const char* key, std::string text) {
    const auto place = places.find(key);
    problems.add(place != places.end() ? place->second : Place{}, std::move(text));
  };
  if (device.port.empty()) return;
  if (std::string why = what_is_wrong(device.port); !why.empty()) say("device.port", std::move(why));
  if (device.on_failure == intercept::OnFailure::kernel && !device.is_shared_with_kernel())
    say("device.on_failure", "on_failure = \"kernel\": the kernel does not have the stack's address; expected share=kernel in port, or \"exit\"");
  if (device.queues > kMostShared && !device.is_numbered()) {
    say("device.queues", "queues = " + std::to_string(device.queues) + ": at most " + std::to_string(kMostShared) +
                             " stacks share a device; expected that or less, or \"auto\"");
  }
}

}  // namespace mtcp::conf
