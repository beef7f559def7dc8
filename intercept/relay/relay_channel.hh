// What a process and the one that it was forked from say to each other about the connections that both have:
// over a SOCK_SEQPACKET pair of their own, made by the fork. A closed end says that the process is gone, or
// another program.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace mtcp::intercept {

class Kernel;
class Process;

// From the process that inherited a connection to its owner. One message holds one or several of the same
// kind.
struct Request {
  enum class Kind : std::uint32_t {
    use,     // it wants to read or write it: answered by a Descriptor
    closed,  // it has closed its last descriptor without having used it
    forked,  // it has a child in turn, which has what it has; the child's channel is passed along
    take,    // it alone uses it, and wants it on the stack in slot `level` (-1: asks whether it might): 0, -EAGAIN (not now) or -EPERM
    option,  // setsockopt(2) of a connection that it uses: answered, so that what it writes next comes after it
  };
  static constexpr std::size_t kOptionRoom = 16;
  Kind kind = Kind::use;
  std::int32_t fd = -1;      // the owner's descriptor when it forked: where to look first
  std::uint64_t serial = 0;  // Socket::serial
  std::int32_t level = 0, name = 0;
  std::uint32_t size = 0, reserved = 0;
  std::byte value[kOptionRoom] = {};
};

// The answer to Request::use, along with which the descriptor is passed if there is no error; and to Request::take and ::option.
struct Descriptor {
  std::uint64_t serial = 0;
  std::int32_t error = 0;  // -errno
  std::int32_t reserved = 0;
};

// A pair of internal descriptors: numbered high, reserved, close-on-exec, non-blocking. 0 or -errno.
[[nodiscard]] int internal_pair(Process& process, int type, int (&ends)[2]);
// A message, with a descriptor if `passed` is not -1. Never SIGPIPE, never waits. Bytes, or -errno.
ssize_t send_message(Kernel& kernel, int channel, const void* p, std::size_t n, int passed = -1);
// `passed` becomes a descriptor that came along (close-on-exec), or -1. Bytes, 0 at the end, or -errno. Never
// waits.
ssize_t receive_message(Kernel& kernel, int channel, void* p, std::size_t n, int& passed);
// Closes an internal descriptor and sets it to -1; -1 is fine.
void close_internal(Process& process, int& fd);

}  // namespace mtcp::intercept
