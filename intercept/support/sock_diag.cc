#include "intercept/support/sock_diag.hh"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace mtcp::intercept {
namespace {

// The answers in what has been received at once. False if there are to be no more.
bool take_answers(std::span<const std::byte> received, const std::function<bool(std::span<const std::byte>)>& take) {
  while (received.size() >= NLMSG_HDRLEN) {
    nlmsghdr head;
    std::memcpy(&head, received.data(), sizeof head);
    if (head.nlmsg_type != SOCK_DIAG_BY_FAMILY || head.nlmsg_len < NLMSG_HDRLEN || head.nlmsg_len > received.size()) return false;
    if (!take(received.first(head.nlmsg_len).subspan(NLMSG_HDRLEN))) return false;
    received = received.subspan(std::min<std::size_t>(NLMSG_ALIGN(head.nlmsg_len), received.size()));
  }
  return true;
}

}  // namespace

void ask_sock_diag(Kernel& kernel, std::span<const std::byte> question,
                   const std::function<bool(std::span<const std::byte> answer)>& take) {
  const int fd = kernel.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return;
  iovec v{const_cast<std::byte*>(question.data()), question.size()};
  msghdr message{};
  message.msg_iov = &v;
  message.msg_iovlen = 1;
  bool more = kernel.sendmsg(fd, &message, 0) == static_cast<ssize_t>(question.size());
  std::array<std::byte, 16384> received;
  // The kernel has answered when it takes the question, and goes on with a long answer when some of it has been received.
  while (more) {
    v = {received.data(), received.size()};
    const ssize_t n = kernel.recvmsg(fd, &message, MSG_DONTWAIT);
    more = n > 0 && take_answers(std::span(received).first(static_cast<std::size_t>(n)), take);
  }
  (void)kernel.close(fd);
}

std::span<const std::byte> attribute_of(std::span<const std::byte> attributes, unsigned type) {
  while (attributes.size() >= sizeof(rtattr)) {
    rtattr a;
    std::memcpy(&a, attributes.data(), sizeof a);
    if (a.rta_len < sizeof a || a.rta_len > attributes.size()) break;
    if (a.rta_type == type) return attributes.first(a.rta_len).subspan(RTA_LENGTH(0));
    attributes = attributes.subspan(std::min<std::size_t>(RTA_ALIGN(a.rta_len), attributes.size()));
  }
  return {};
}

}  // namespace mtcp::intercept
