#include "conf/check.hh"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "conf/check_device.hh"
#include "conf/check_rules.hh"
#include "conf/rules.hh"
#include "conf/text.hh"
#include "stack/kernel_net/view.hh"
#include "stack/port/device.hh"

namespace mtcp::conf {
namespace {

using intercept::Options;
using stack::InterfaceOptions;

class Checker {
 public:
  Checker(const Options& options, const Places& places, const WrongKeys& wrong, Problems& problems)
      : options_(options), places_(places), wrong_(wrong), problems_(problems) {}

  void run() {
    if (problems_.none()) something_to_run_on();  // else what is missing may be there, in other words
    if (fine({"device.port", "device.queues"})) {
      const std::size_t before = problems_.count();
      placeholders();
      if (problems_.count() == before) check_device(options_, places_, problems_);
    }
    if (fine({"interface.address", "interface.gateway"}) && !options_.stack.interface.from_kernel) gateways();
    if (fine({"tcp.rto_min", "tcp.rto_max", "tcp.delayed_ack"})) timeouts();
    if (fine({"interface.address", "interface.gateway", "stack.loopback"})) rules();
  }

 private:
  [[nodiscard]] bool fine(std::initializer_list<std::string_view> keys) const {
    return std::ranges::none_of(keys, [this](std::string_view key) { return wrong_.contains(key); });
  }

  void say(const char* key, std::string text) {
    const auto place = places_.find(key);
    problems_.add(place != places_.end() ? place->second : Place{}, std::move(text));
  }

  void something_to_run_on() {
    const auto& addresses = options_.stack.interface.addresses;
    const bool device = !options_.device.port.empty();
    if (!device && addresses.empty() && !options_.stack.loopback && !options_.stack.interface.from_kernel) {
      say("",
          "nothing for the stack to run on: expected port in [device] and address in [interface], or "
          "loopback = true in [stack]");
    }
    if (options_.stack.interface.from_kernel) return kernels_addresses();
    if (device && addresses.empty())
      say("device.port", "a device needs an address: expected address in [interface]");
    for (const auto& a : addresses) {
      if (device && !a.address.is_v4() && stack::is_link_local(a.address))
        say("interface.address", "address " + to_text(a.address) + ": a link-local address can't be the stack's");
      else if (options_.device.is_shared_with_kernel() && !a.address.is_v4())
        say("interface.address", "address " + to_text(a.address) +
                                     ": on an interface that is shared with the kernel those of IPv6 can't be chosen; "
                                     "expected address = \"kernel\", which are all that the kernel has there");
    }
  }

  // Only where the kernel goes on receiving what is not the stack's: it is the kernel that answers ARP.
  void kernels_addresses() {
    const auto& device = options_.device;
    std::string interface = stack::value_of(device.port, "iface");
    const std::string shared = "net_af_xdp0,iface=" + (interface.empty() ? "NAME" : interface) + ",share=kernel";
    if (!options_.stack.interface.gateways.empty())
      say("interface.gateway", "with address = \"kernel\" the routes are the kernel's, too: leave gateway out");
    if (device.is_shared_with_kernel()) return;
    std::string why = "the kernel has no interface there";
    if (device.port.empty()) why = "it is about an interface of the kernel";
    if (device.port.starts_with("net_af_packet")) why = "with net_af_packet the kernel would answer what is the stack's";
    if (device.port.starts_with("net_af_xdp")) why = "the kernel receives nothing on an interface that is not shared";
    say("interface.address", "address = \"kernel\": " + why + "; expected port = \"" + shared +
                                 "\" in [device], or addresses of the stack's own here");
  }

  // {worker} must mean something: a device of each process's own, and as many as the other end has.
  void placeholders() {
    const auto& device = options_.device;
    if (device.port.find_first_of("{}") == std::string::npos) return;
    if (const std::string unknown = unknown_placeholder(device.port); !unknown.empty()) {
      say("device.port", "unknown placeholder " + unknown + " in port: expected {worker}");
    } else if (!device.is_private()) {
      say("device.port",
          "{worker} in port: all processes share this device; {worker} is for those that each process opens "
          "for "
          "itself (net_memif)");
    } else if (!places_.contains("device.queues") || device.queues == 0) {
      say("device.port",
          "{worker} in port needs queues: expected the number of processes at a time, as on the other end");
    } else if (device.port.starts_with("net_memif")) {
      memif_sockets(device.port);
    }
  }

  void memif_sockets(const std::string& port) {
    if (argument(port, "socket").find("{worker}") != std::string_view::npos) return;
    if (argument(port, "role") == "server") {
      say("device.port", "a memif server needs a socket of its own: expected {worker} in socket=");
    } else if (argument(port, "id").find("{worker}") == std::string_view::npos) {
      say("device.port", "{worker} must tell the wires apart: expected it in socket= or id=");
    }
  }

  // The first brace that does not belong to {worker}, with what it encloses.
  static std::string unknown_placeholder(std::string_view port) {
    constexpr std::string_view kKnown = "{worker}";
    for (std::size_t at = 0; (at = port.find_first_of("{}", at)) != port.npos; at += kKnown.size()) {
      if (port.substr(at).starts_with(kKnown)) continue;
      const std::size_t end = port.find_first_of("},", at + 1);
      const std::size_t length = end == port.npos ? port.npos : end - at + (port[end] == '}' ? 1 : 0);
      return std::string(port.substr(at, length));
    }
    return {};
  }

  // The value of ",name=value" in a device string.
  static std::string_view argument(std::string_view port, std::string_view name) {
    const std::string key = "," + std::string(name) + "=";
    const std::size_t at = port.find(key);
    if (at == port.npos) return {};
    port.remove_prefix(at + key.size());
    return port.substr(0, port.find(','));
  }

  void gateways() {
    const auto& interface = options_.stack.interface;
    for (const auto& gateway : interface.gateways) {
      const auto on_link = [&](const InterfaceOptions::Address& a) {
        return a.address.is_v4() == gateway.is_v4() &&
               (stack::Prefix{a.address, a.prefix_length}.contains(gateway) ||
                (!gateway.is_v4() && stack::is_link_local(gateway)));
      };
      const auto own = [&](const InterfaceOptions::Address& a) { return a.address == gateway; };
      if (std::ranges::any_of(interface.addresses, own)) {
        say("interface.gateway", "gateway " + to_text(gateway) + " is the stack's own address");
      } else if (std::ranges::none_of(interface.addresses, on_link)) {
        say("interface.gateway", "gateway " + to_text(gateway) + " is on no network of address" + networks());
      }
    }
  }

  // " (10.9.0.0/24)", or nothing
  [[nodiscard]] std::string networks() const {
    std::string text;
    for (const auto& a : options_.stack.interface.addresses) {
      const stack::Prefix p{network_of({a.address, a.prefix_length}), a.prefix_length};
      text += (text.empty() ? " (" : ", ") + to_text(p);
    }
    return text.empty() ? text : text + ")";
  }

  void timeouts() {
    const auto& tcp = options_.stack.tcp;
    if (tcp.rto_min > tcp.rto_max) {
      say("tcp.rto_min",
          "rto_min (" + to_text(tcp.rto_min) + ") is greater than rto_max (" + to_text(tcp.rto_max) + ")");
    }
    if (tcp.delayed_ack > tcp.rto_min && places_.contains("tcp.delayed_ack")) {
      say("tcp.delayed_ack", "delayed_ack (" + to_text(tcp.delayed_ack) + ") must not be greater than rto_min (" +
                                 to_text(tcp.rto_min) +
                                 "), or a peer like this one retransmits what has arrived");
    }
  }

  void rules() {
    for (std::size_t i = 0; i < options_.rules.size(); ++i) {
      if (const std::string why = why_impossible(options_.rules[i], options_); !why.empty())
        say(rule_key(i).c_str(), "this rule can't be honoured: " + why);
    }
  }

  const Options& options_;
  const Places& places_;
  const WrongKeys& wrong_;
  Problems& problems_;
};

}  // namespace

void check(const Options& options, const Places& places, const WrongKeys& wrong, Problems& problems) {
  Checker(options, places, wrong, problems).run();
}

}  // namespace mtcp::conf
