// The socket options that the stack itself does not look at: what becomes of each, by level and number. Those that it keeps
// have a row in sockopt_table.cc.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mtcp::intercept {

enum class OptionKind : std::uint8_t {
  // About machinery that the stack has not got (queueing disciplines, firewall marks, control messages that TCP never
  // delivers): the value is kept, inherited by accept and read back, as the kernel does where nobody looks at it.
  kept,
  // Its usual value is kept. Another one only the kernel can honour: the socket becomes the kernel's, or, if it is on
  // the stack already, the call fails with ENOPROTOOPT.
  kernels,
  // As `kernels` before it is decided whose the socket is. On the stack neither read nor written, as on a kernel that is older
  // than the option: nobody needs to read it there.
  absent,
  // The kernel socket's own answer, for reading and writing.
  passed,
  // Neither read nor written, in any state.
  refused,
  // Not in the list. Before it is decided whose the socket is, as `kernels`; on the stack it is refused.
  unknown,
};

[[nodiscard]] OptionKind kind_of_option(int level, int name);
// Whether a value of an option of kind `kernels` or `absent` is the usual one.
[[nodiscard]] bool is_usual(int level, int name, const void* v, socklen_t n);

// A value as getsockopt gave it.
struct KeptOption {
  int level = 0;
  int name = 0;
  socklen_t size = 0;
  std::array<std::byte, 16> value{};
};
using KeptOptions = std::vector<KeptOption>;

}  // namespace mtcp::intercept
