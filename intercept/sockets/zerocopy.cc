#include "intercept/sockets/zerocopy.hh"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>

#include "intercept/descriptors/socket.hh"

namespace mtcp::intercept {
namespace {

template <typename Address>
struct ErrorMessage {
  sock_extended_err error;
  Address offender;
};

// put_cmsg(): what does not fit is cut off, and said to be.
template <typename T>
void put_control(msghdr& m, int level, int type, const T& data) {
  const std::size_t room = m.msg_control != nullptr ? m.msg_controllen : 0;
  if (room < sizeof(cmsghdr)) {
    m.msg_flags |= MSG_CTRUNC;
    m.msg_controllen = 0;
    return;
  }
  const std::size_t length = std::min(CMSG_LEN(sizeof data), room);
  if (length < CMSG_LEN(sizeof data)) m.msg_flags |= MSG_CTRUNC;
  const cmsghdr header{.cmsg_len = length, .cmsg_level = level, .cmsg_type = type};
  std::memcpy(m.msg_control, &header, sizeof header);
  std::memcpy(static_cast<std::byte*>(m.msg_control) + CMSG_LEN(0), &data, length - CMSG_LEN(0));
  m.msg_controllen = std::min(CMSG_SPACE(sizeof data), room);
}

}  // namespace

void complete_zerocopy(Socket& s) {
  const std::uint32_t number = s.zerocopy_sends++;
  if (!s.completions.empty() && s.completions.back().last + 1 == number) {
    s.completions.back().last = number;
  } else {
    s.completions.push_back({number, number});
  }
  notify(s, EPOLLERR);
}

int receive_completion(Socket& s, msghdr* m) {
  if (s.completions.empty()) return -EAGAIN;
  const ZerocopyCompletion done = s.completions.front();
  s.completions.erase(s.completions.begin());
  if (m == nullptr) return 0;
  sock_extended_err error{};
  error.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
  error.ee_code = SO_EE_CODE_ZEROCOPY_COPIED;
  error.ee_info = done.first;
  error.ee_data = done.last;
  m->msg_flags = MSG_ERRQUEUE;
  m->msg_namelen = 0;
  if (s.v6) {
    put_control(*m, IPPROTO_IPV6, IPV6_RECVERR, ErrorMessage<sockaddr_in6>{error, {}});
  } else {
    put_control(*m, IPPROTO_IP, IP_RECVERR, ErrorMessage<sockaddr_in>{error, {}});
  }
  return 0;
}

}  // namespace mtcp::intercept
