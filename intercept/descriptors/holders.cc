#include "intercept/descriptors/holders.hh"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>

#include "intercept/sockets/freebind.hh"

namespace mtcp::intercept {
namespace {

struct Question {
  nlmsghdr head{};
  inet_diag_req_v2 what{};
};

Question question_about(const stack::Endpoint& local) {
  Question q;
  q.head.nlmsg_len = sizeof q;
  q.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  q.head.nlmsg_flags = NLM_F_REQUEST;
  q.what.sdiag_protocol = IPPROTO_TCP;
  q.what.idiag_states = 1U << TCP_LISTEN;
  q.what.id.idiag_sport = htons(local.port);
  q.what.id.idiag_cookie[0] = q.what.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  const auto& bytes = local.address.bytes;
  if (local.address.is_v4()) {
    q.what.sdiag_family = AF_INET;
    std::memcpy(q.what.id.idiag_src, bytes.data() + 12, 4);
  } else {
    q.what.sdiag_family = AF_INET6;
    std::memcpy(q.what.id.idiag_src, bytes.data(), 16);
  }
  return q;
}

struct Found {
  inet_diag_msg socket;
  bool marked;  // mark_listener
};

// INET_DIAG_SOCKOPT, since Linux 5.10, of which Debian 12's header has what is needed.
bool is_marked(std::span<const std::byte> attributes) {
  while (attributes.size() >= sizeof(rtattr)) {
    rtattr a;
    std::memcpy(&a, attributes.data(), sizeof a);
    if (a.rta_len < sizeof a || a.rta_len > attributes.size()) break;
    inet_diag_sockopt options{};
    if (a.rta_type == INET_DIAG_SOCKOPT && a.rta_len >= RTA_LENGTH(sizeof options)) {
      std::memcpy(&options, attributes.data() + RTA_LENGTH(0), sizeof options);
      return options.freebind != 0;
    }
    attributes = attributes.subspan(std::min<std::size_t>(RTA_ALIGN(a.rta_len), attributes.size()));
  }
  return false;
}

std::optional<Found> listening_socket(Kernel& kernel, const stack::Endpoint& local) {
  const int fd = kernel.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return std::nullopt;
  Question q = question_about(local);
  iovec out{&q, sizeof q};
  msghdr message{};
  message.msg_iov = &out;
  message.msg_iovlen = 1;
  std::optional<Found> found;
  struct Answer {
    nlmsghdr head;
    inet_diag_msg socket;
    std::array<std::byte, 512> attributes;
  } answer{};
  if (kernel.sendmsg(fd, &message, 0) == static_cast<ssize_t>(sizeof q)) {
    iovec in{&answer, sizeof answer};
    message.msg_iov = &in;
    // The kernel has answered when it takes the question.
    const ssize_t n = kernel.recvmsg(fd, &message, MSG_DONTWAIT);
    const bool listens = n >= static_cast<ssize_t>(sizeof(nlmsghdr) + sizeof(inet_diag_msg)) &&
                         answer.head.nlmsg_type == SOCK_DIAG_BY_FAMILY && answer.socket.idiag_state == TCP_LISTEN;
    constexpr std::size_t kBefore = offsetof(Answer, attributes);
    if (listens) found = {answer.socket, is_marked(std::span(answer.attributes).first(static_cast<std::size_t>(n) - kBefore))};
  }
  (void)kernel.close(fd);
  return found;
}

}  // namespace

bool listens_in_kernel(Kernel& kernel, const stack::Endpoint& local) { return listening_socket(kernel, local).has_value(); }

void mark_listener(Kernel& kernel, int fd, bool v6) { set_freebind(kernel, fd, v6, true); }

bool is_listener_of_stack(Kernel& kernel, const stack::Endpoint& local) {
  const auto found = listening_socket(kernel, local);
  if (!found) return false;
  const Question asked = question_about(local);
  const auto& source = found->socket.id.idiag_src;
  if (found->socket.idiag_family == asked.what.sdiag_family && std::ranges::equal(source, asked.what.id.idiag_src)) return true;
  return found->marked && std::ranges::all_of(source, [](std::uint32_t word) { return word == 0; });
}

std::optional<uid_t> listening_user(Kernel& kernel, const stack::Endpoint& local) {
  const auto found = listening_socket(kernel, local);
  return found ? std::optional<uid_t>(found->socket.idiag_uid) : std::nullopt;
}

}  // namespace mtcp::intercept
