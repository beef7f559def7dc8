#include "stack/port/dpdk/share/kernel_neighbours.hh"

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "stack/port/dpdk/bpf_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::uint16_t kDiscard = 9;  // RFC 863
constexpr int kUsable = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;

struct Question {
  nlmsghdr head;
  ndmsg neighbour;
  rtattr attribute;
  std::uint32_t address;
};

// The Ethernet address in an answer of the kernel's; false if it has none that can be used.
bool read_answer(const std::byte* data, std::size_t size, MacAddress& mac) {
  nlmsghdr head;
  ndmsg neighbour;
  if (size < NLMSG_LENGTH(sizeof neighbour)) return false;
  memcpy(&head, data, sizeof head);
  memcpy(&neighbour, data + NLMSG_HDRLEN, sizeof neighbour);
  if (head.nlmsg_type != RTM_NEWNEIGH || (neighbour.ndm_state & kUsable) == 0) return false;
  std::size_t at = NLMSG_LENGTH(sizeof neighbour);
  for (rtattr a; at + sizeof a <= size; at += RTA_ALIGN(a.rta_len)) {
    memcpy(&a, data + at, sizeof a);
    if (a.rta_len < sizeof a || at + a.rta_len > size) return false;
    if (a.rta_type != NDA_LLADDR || RTA_PAYLOAD(&a) != mac.bytes.size()) continue;
    memcpy(mac.bytes.data(), data + at + sizeof a, mac.bytes.size());
    return true;
  }
  return false;
}

}  // namespace

// None is kept: whatever the application closes or inherits, the next question finds a way.
bool KernelNeighbours::look_up(Answer& answer) const {
  const Descriptor netlink(system_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  const auto fd = static_cast<long>(netlink.number());
  Question question{};
  question.head = {.nlmsg_len = sizeof question, .nlmsg_type = RTM_GETNEIGH, .nlmsg_flags = NLM_F_REQUEST};
  question.neighbour.ndm_family = AF_INET;
  question.neighbour.ndm_ifindex = static_cast<int>(if_nametoindex(interface_.c_str()));
  question.attribute = {.rta_len = RTA_LENGTH(sizeof question.address), .rta_type = NDA_DST};
  question.address = htonl(answer.address);
  if (system_call(SYS_sendto, fd, arg(&question), sizeof question, 0, 0, 0) < 0) return false;
  alignas(nlmsghdr) std::array<std::byte, 2048> buffer;
  const long n = system_call(SYS_recvfrom, fd, arg(buffer.data()), buffer.size(), MSG_DONTWAIT, 0, 0);
  return n > 0 && read_answer(buffer.data(), static_cast<std::size_t>(n), answer.mac);
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
