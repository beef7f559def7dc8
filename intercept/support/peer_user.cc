#include "intercept/support/peer_user.hh"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "intercept/support/sock_diag.hh"

namespace mtcp::intercept {

std::optional<uid_t> user_of_name(Kernel& kernel, int type, std::span<const std::byte> name) {
  struct {
    nlmsghdr head{};
    unix_diag_req what{};
  } question;
  question.head.nlmsg_len = sizeof question;
  question.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  question.what.sdiag_family = AF_UNIX;
  question.what.udiag_states = 1U << TCP_LISTEN | 1U << TCP_CLOSE;  // those that have come to it have its name as well
  question.what.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_UID;
  std::optional<uid_t> user;
  ask_sock_diag(kernel, std::as_bytes(std::span(&question, 1)), [&](std::span<const std::byte> answer) {
    unix_diag_msg socket;
    if (answer.size() < sizeof socket) return false;
    std::memcpy(&socket, answer.data(), sizeof socket);
    const auto attributes = answer.subspan(sizeof socket);
    if (socket.udiag_type != type || !std::ranges::equal(attribute_of(attributes, UNIX_DIAG_NAME), name)) return true;
    std::uint32_t number = 0;
    if (const auto value = attribute_of(attributes, UNIX_DIAG_UID); value.size() == sizeof number) {
      std::memcpy(&number, value.data(), sizeof number);
      user = number;
    }
    return false;
  });
  return user;
}

}  // namespace mtcp::intercept
