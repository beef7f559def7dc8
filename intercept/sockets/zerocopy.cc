#include "intercept/sockets/zerocopy.hh"

#include <errno.h>
#include <sys/epoll.h>

#include "intercept/descriptors/socket.hh"
#include "intercept/sockets/control_messages.hh"

namespace mtcp::intercept {

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
  ControlMessages(*m).put_error(s.v6, error);
  return 0;
}

}  // namespace mtcp::intercept
