// TCP Fast Open (RFC 7413): what is set, and what a connect begins with.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/base/siphash.hh"

namespace mtcp::stack {

// The bits of TcpTuning::fast_open, as of net.ipv4.tcp_fastopen.
enum FastOpenBit : std::uint32_t {
  kFastOpenClient = 1,
  kFastOpenServer = 2,
  kFastOpenClientNoCookie = 4,         // data goes with the SYN whether there is a cookie or not
  kFastOpenServerNoCookie = 0x200,     // and is taken so
  kFastOpenAllListeners = 0x400,       // without TCP_FASTOPEN, as many as the backlog
};

// TCP_FASTOPEN_KEY: cookies are made with the first, and taken from either. None: the stack's own.
struct FastOpenKeys {
  std::array<SipKey, 2> keys{};
  std::uint8_t count = 0;
};

// What has kept a client's data out of its SYN, or made it go again. The numbers are Linux's (tcpi_fastopen_client_fail).
enum class FastOpenFailure : std::uint8_t {
  none,
  no_cookie,          // there was none, and it was wanted
  not_acknowledged,   // the SYN-ACK does not acknowledge all of the data
  syn_retransmitted,  // nor does it, after a second SYN, which has none: a middlebox may drop what the first was like
};

// A connect with data for the SYN.
struct FastOpenStart {
  std::span<const iovec> data;
  std::size_t taken = 0;  // out: bytes that are the connection's now, sent with the SYN
};

}  // namespace mtcp::stack
