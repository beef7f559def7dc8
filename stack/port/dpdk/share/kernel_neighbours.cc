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
#include "stack/port/dpdk/af_xdp/bpf_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::uint16_t kDiscard = 9;  // RFC 863

}  // namespace

// None is kept: whatever the application closes or inherits, the next question finds a way.
bool KernelNeighbours::look_up(Answer& answer) const {
  const Descriptor socket(system_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  const auto fd = static_cast<long>(socket.number());
  const std::uint32_t interface = if_nametoindex(interface_.c_str());
  const std::vector<std::byte> question = netlink::neighbour_request(IpAddress::v4(answer.address), interface, 1);
  if (system_call(SYS_sendto, fd, arg(question.data()), static_cast<long>(question.size()), 0, 0, 0) < 0) return false;
  alignas(nlmsghdr) std::array<std::byte, 2048> buffer;
  const long n = system_call(SYS_recvfrom, fd, arg(buffer.data()), buffer.size(), MSG_DONTWAIT, 0, 0);
  if (n <= 0) return false;
  std::span<const std::byte> rest(buffer.data(), static_cast<std::size_t>(n));
  netlink::Message message;
  KernelNeighbour found;
  if (!netlink::next_message(rest, message) || !netlink::read_neighbour(message, interface, found)) return false;
  if (found.state != KernelNeighbour::State::known) return false;
  answer.mac = found.mac;
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
  if (std::ranges::find_if(wanted_, same) == wanted_.end())
    wanted_.push_back({{.address = address, .asked_by = asked_by, .mac = {}}, now + kPatience, false});
  next_look_ = {};
}

bool KernelNeighbours::next(Answer& answer, Time now) {
  if (wanted_.empty() || now < next_look_) return false;
  for (auto w = wanted_.begin(); w != wanted_.end();) {
    if (look_up(w->answer)) {
      answer = w->answer;
      wanted_.erase(w);
      return true;
    }
    if (!w->asked) make_kernel_ask(w->answer.address);
    w->asked = true;
    w = now > w->until ? wanted_.erase(w) : w + 1;
  }
  next_look_ = now + kAgain;
  return false;
}

}  // namespace mtcp::stack::dpdk
