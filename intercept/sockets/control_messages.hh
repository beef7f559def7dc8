// Control messages of recvmsg, one behind the other as the kernel's put_cmsg() puts them: what does not fit is cut off, and said to be.
#pragma once

#include <time.h>
// After <time.h>, which it needs.
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace mtcp::intercept {

class ControlMessages {
 public:
  explicit ControlMessages(msghdr& m)
      : m_(m), at_(static_cast<std::byte*>(m.msg_control)), left_(m.msg_control != nullptr ? m.msg_controllen : 0) {
    m.msg_controllen = 0;
  }

  template <typename T>
  void put(int level, int type, const T& data) {
    if (left_ < sizeof(cmsghdr)) {
      m_.msg_flags |= MSG_CTRUNC;
      return;
    }
    const std::size_t length = std::min(CMSG_LEN(sizeof data), left_);
    if (length < CMSG_LEN(sizeof data)) m_.msg_flags |= MSG_CTRUNC;
    const cmsghdr header{.cmsg_len = length, .cmsg_level = level, .cmsg_type = type};
    std::memcpy(at_, &header, sizeof header);
    std::memcpy(at_ + CMSG_LEN(0), &data, length - CMSG_LEN(0));
    const std::size_t space = std::min(CMSG_SPACE(sizeof data), left_);
    at_ += space;
    left_ -= space;
    m_.msg_controllen += space;
  }

  // As ip_recv_error() and its like of IPv6, of a stream, which has no offender.
  void put_error(bool v6, const sock_extended_err& error) {
    if (v6)
      put(IPPROTO_IPV6, IPV6_RECVERR, Error<sockaddr_in6>{error, {}});
    else
      put(IPPROTO_IP, IP_RECVERR, Error<sockaddr_in>{error, {}});
  }

 private:
  template <typename Address>
  struct Error {
    sock_extended_err error;
    Address offender;
  };

  msghdr& m_;
  std::byte* at_;
  std::size_t left_;
};

}  // namespace mtcp::intercept
