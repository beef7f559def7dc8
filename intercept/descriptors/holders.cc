#include "intercept/descriptors/holders.hh"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include "intercept/sockets/freebind.hh"
#include "intercept/support/sock_diag.hh"

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
  inet_diag_sockopt options{};
  const auto value = attribute_of(attributes, INET_DIAG_SOCKOPT);
  if (value.size() < sizeof options) return false;
  std::memcpy(&options, value.data(), sizeof options);
  return options.freebind != 0;
}

std::optional<Found> listening_socket(Kernel& kernel, const stack::Endpoint& local) {
  std::optional<Found> found;
  const Question question = question_about(local);
  ask_sock_diag(kernel, std::as_bytes(std::span(&question, 1)), [&](std::span<const std::byte> answer) {
    inet_diag_msg socket;
    if (answer.size() < sizeof socket) return false;
    std::memcpy(&socket, answer.data(), sizeof socket);
    if (socket.idiag_state == TCP_LISTEN) found = {socket, is_marked(answer.subspan(sizeof socket))};
    return false;
  });
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
