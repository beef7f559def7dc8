#include "stack/port/dpdk/share/kernel_neighbours.hh"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "stack/kernel_net/messages.hh"
#include "stack/port/dpdk/interface/bpf_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::uint16_t kDiscard = 9;  // RFC 863

}  // namespace

// One that the kernel has not heard of for some time is good, and is to be made sure of: nobody else does it, because what the
// stack sends does not pass the kernel's table.
bool KernelNeighbours::look_up(const Descriptor& kernel, std::uint32_t interface, Wanted& wanted) const {
  const auto fd = static_cast<long>(kernel.number());
  const std::vector<std::byte> question = netlink::neighbour_request(IpAddress::v4(wanted.answer.address), interface, 1);
  if (system_call(SYS_sendto, fd, arg(question.data()), static_cast<long>(question.size()), 0, 0, 0) < 0) return false;
  alignas(nlmsghdr) std::array<std::byte, 2048> buffer;
  const long n = system_call(SYS_recvfrom, fd, arg(buffer.data()), buffer.size(), MSG_DONTWAIT, 0, 0);
  if (n <= 0) return false;
  std::span<const std::byte> rest(buffer.data(), static_cast<std::size_t>(n));
  netlink::Message message;
  KernelNeighbour found;
  if (!netlink::next_message(rest, message) || !netlink::read_neighbour(message, interface, found)) return false;
  if (found.state != KernelNeighbour::State::known) return false;
  if (found.stale && !wanted.asked) make_kernel_ask(wanted.answer.address);
  wanted.answer.mac = found.mac;
  return true;
}

// Whoever may have the kernel ask (NTF_USE) has CAP_NET_ADMIN; a datagram anybody may send.
void KernelNeighbours::make_kernel_ask(std::uint32_t address) const {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(kDiscard);
  to.sin_addr.s_addr = htonl(address);
  const Descriptor socket(system_call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return;
  (void)system_call(SYS_setsockopt, static_cast<long>(socket.number()), SOL_SOCKET, SO_BINDTODEVICE, arg(interface_.c_str()),
                    static_cast<long>(interface_.size()));
  system_call(SYS_sendto, static_cast<long>(socket.number()), 0, 0, MSG_DONTWAIT | MSG_DONTROUTE | MSG_NOSIGNAL, arg(&to), sizeof to);
}

void KernelNeighbours::ask(std::uint32_t address, std::uint32_t asked_by, Time now) {
  const auto same = [&](const Wanted& w) { return w.answer.address == address; };
  if (const auto at = std::ranges::find_if(wanted_, same); at != wanted_.end())
    at->next_look = now;
  else if (wanted_.size() < kMost)
    wanted_.push_back({.answer = {.address = address, .asked_by = asked_by, .mac = {}}, .until = now + kPatience, .next_look = now});
}

// No descriptor is kept: whatever the application closes or inherits, the next question finds a way.
void KernelNeighbours::look(std::deque<Answer>& found, Time now) {
  if (std::ranges::none_of(wanted_, [now](const Wanted& w) { return now >= w.next_look; })) return;
  const Descriptor kernel(system_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  const std::uint32_t interface = if_nametoindex(interface_.c_str());
  std::erase_if(wanted_, [&](Wanted& w) {
    if (now < w.next_look) return false;
    if (look_up(kernel, interface, w)) {
      found.push_back(w.answer);
      return true;
    }
    if (!w.asked) make_kernel_ask(w.answer.address);
    w.asked = true;
    w.next_look = now + w.pause;
    w.pause = std::min(2 * w.pause, kAtLast);
    return now > w.until;
  });
}

}  // namespace mtcp::stack::dpdk
