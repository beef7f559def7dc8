#include "conf/check.hh"

#include <algorithm>

#include "conf/text.hh"

namespace mtcp::conf {
namespace {

using intercept::Options;
using stack::InterfaceOptions;

class Checker {
 public:
  Checker(const Options& options, const Places& places, Problems& problems)
      : options_(options), places_(places), problems_(problems) {}

  void run() {
    something_to_run_on();
    gateways();
    timeouts();
  }

 private:
  void say(const char* key, std::string text) {
    const auto place = places_.find(key);
    problems_.add(place != places_.end() ? place->second : Place{}, std::move(text));
  }

  void something_to_run_on() {
    const auto& addresses = options_.stack.interface.addresses;
    const bool device = !options_.device.port.empty();
    if (!device && addresses.empty() && !options_.stack.loopback) {
      say("",
          "nothing for the stack to run on: expected port in [device] and address in [interface], or "
          "loopback = true in [stack]");
    }
    if (device && addresses.empty())
      say("device.port", "a device needs an address: expected address in [interface]");
    for (const auto& a : addresses) {
      // Neighbour discovery is not there yet.
      if (device && !a.address.is_v4()) {
        say("interface.address", "address " + to_text(a.address) +
                                     ": a device carries IPv4 only, so far; IPv6 works within a process, "
                                     "without port in [device]");
      }
    }
  }

  void gateways() {
    const auto& interface = options_.stack.interface;
    for (const auto& gateway : interface.gateways) {
      const auto on_link = [&](const InterfaceOptions::Address& a) {
        return a.address.is_v4() == gateway.is_v4() &&
               stack::Prefix{a.address, a.prefix_length}.contains(gateway);
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
    if (tcp.delayed_ack >= tcp.rto_min && places_.contains("tcp.delayed_ack")) {
      say("tcp.delayed_ack", "delayed_ack (" + to_text(tcp.delayed_ack) + ") must be less than rto_min (" +
                                 to_text(tcp.rto_min) +
                                 "), or a peer like this one retransmits what has arrived");
    }
  }

  const Options& options_;
  const Places& places_;
  Problems& problems_;
};

}  // namespace

void check(const Options& options, const Places& places, Problems& problems) {
  Checker(options, places, problems).run();
}

}  // namespace mtcp::conf
