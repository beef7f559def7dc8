// rtnetlink (RFC 3549): messages of the kernel into values, and questions to it. Every length is checked against what there
// is; what is not understood is stepped over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "stack/kernel_net/view.hh"

namespace mtcp::stack::netlink {

// As in <linux/netlink.h> and <linux/rtnetlink.h>, which not every user of this can include.
struct Message {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  std::uint32_t sequence = 0;
  std::span<const std::byte> body;
};

// The first message of a datagram, which is taken off its front. False at the end, or when the rest is no message.
bool next_message(std::span<const std::byte>& datagram, Message& out);

// What dumps have brought of links, addresses, rules, and then routes: of tables that no rule names they are not kept.
class ViewBuilder {
 public:
  static constexpr std::size_t kMostRoutes = 65536;

  explicit ViewBuilder(std::uint32_t interface) : interface_(interface) {}
  void take(const Message& m);
  [[nodiscard]] KernelView finish();

 private:
  void take_link(std::span<const std::byte> body);
  void take_address(std::span<const std::byte> body);
  void take_route(std::span<const std::byte> body);
  void take_rule(std::span<const std::byte> body);
  [[nodiscard]] bool uses(std::uint32_t table) const;

  const std::uint32_t interface_;
  KernelView view_;
  std::vector<KernelRule> rules_;
};

// Whether a notification says that the view may not be what it was: of the interface's link, any address, rule or route, but for
// those of the local table, which come with the addresses.
[[nodiscard]] bool changes_view(const Message& m, std::uint32_t interface);
// What a notification or a dump says of a neighbour on the interface; false if it says nothing.
[[nodiscard]] bool read_neighbour(const Message& m, std::uint32_t interface, KernelNeighbour& out);
// The error number of an answer (0: none), or -1 if it is no answer.
[[nodiscard]] int read_error(const Message& m);

// A question for the interface's link; one for all objects of a kind: RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE, RTM_GETNEIGH.
[[nodiscard]] std::vector<std::byte> link_request(std::uint32_t interface, std::uint32_t sequence);
[[nodiscard]] std::vector<std::byte> dump_request(std::uint16_t type, std::uint32_t sequence);
// For one neighbour on the interface.
[[nodiscard]] std::vector<std::byte> neighbour_request(const IpAddress& neighbour, std::uint32_t interface, std::uint32_t sequence);
// NTF_USE: the neighbour is in use. Answered only if that can't be done.
[[nodiscard]] std::vector<std::byte> use_request(const IpAddress& neighbour, std::uint32_t interface,
                                                 std::uint32_t sequence);

}  // namespace mtcp::stack::netlink
