// What the kernel says over rtnetlink, and what it would never say.
#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/kernel_net/messages.hh"

using namespace mtcp::stack;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint32_t kInterface = 1;
  std::span<const std::byte> rest(reinterpret_cast<const std::byte*>(data), size);
  netlink::ViewBuilder builder(kInterface);
  for (netlink::Message m; netlink::next_message(rest, m);) {
    builder.take(m);
    (void)netlink::changes_view(m, kInterface);
    (void)netlink::read_error(m);
    if (KernelNeighbour n; netlink::read_neighbour(m, kInterface, n) && n.state == KernelNeighbour::State::known && n.mac.is_multicast())
      __builtin_trap();
  }
  const KernelView view = builder.finish();
  for (const KernelRoute& r : view.routes()) {
    const KernelRoute* found = view.route_in(r.table, r.destination.address);
    // It has itself, or a better one.
    if (found == nullptr || found->destination.length < r.destination.length) __builtin_trap();
    (void)view.source_towards(r.destination.address, *found);
    (void)view.route_to(r.destination.address);
    (void)view.reaches(r.destination.address);
  }
  for (const KernelAddress& a : view.own)
    if (view.reaches(a.address) || is_link_local(a.address)) __builtin_trap();
  return 0;
}
