#include "intercept/sockets/zerocopy.hh"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include "intercept/descriptors/socket.hh"
#include "intercept/sockets/control_messages.hh"

namespace mtcp::intercept {
namespace {

template <typename Address>
struct ErrorMessage {
  sock_extended_err error;
  Address offender;
};

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
    ControlMessages(*m).put(IPPROTO_IPV6, IPV6_RECVERR, ErrorMessage<sockaddr_in6>{error, {}});
  } else {
    ControlMessages(*m).put(IPPROTO_IP, IP_RECVERR, ErrorMessage<sockaddr_in>{error, {}});
  }
  return 0;
}

}  // namespace mtcp::intercept
