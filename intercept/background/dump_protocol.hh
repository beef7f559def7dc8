// What mtcp-dump and a process on mtcp say to each other, in the byte order of the machine. mtcp-dump connects to the process's socket
// (stat_server.hh) from a socket that it has bound to an abstract name that begins with kDumpName, and sends at once, in one piece, a
// DumpRequest and the filter's instructions. The answer is a DumpAnswer; without an error a descriptor comes with it, of a
// CaptureHeader and a ring of `ring_size` bytes (stack/capture/ring.hh). The packets come until one of the two closes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace mtcp::intercept {

inline constexpr std::string_view kDumpName = "mtcp-dump-";
inline constexpr std::array<char, 8> kDumpMagic{'m', 't', 'c', 'p', 'd', 'm', 'p', '1'};  // its last byte is the version

struct DumpRequest {
  std::array<char, 8> magic = kDumpMagic;
  std::uint32_t snap_length = 0;   // bytes of each packet
  std::uint32_t ring_size = 0;     // bytes; a power of two
  std::uint32_t instructions = 0;  // of the filter (stack/capture/filter.hh), which follow; 0: every packet
  std::uint32_t unused = 0;
};

enum class DumpError : std::uint32_t {
  none,
  refused,       // neither root nor a user who could look into the process's memory
  bad_request,
  bad_filter,
  too_many,      // others capture already
  no_memory,
  no_stack,
};

struct DumpAnswer {
  std::array<char, 8> magic = kDumpMagic;
  DumpError error = DumpError::none;
  std::uint32_t stack = 0;          // its number on the device
  std::uint64_t ring_size = 0;
  std::int64_t clock_offset = 0;    // nanoseconds from a record's time to the time of day
  std::array<char, 64> program{};   // both end with a zero
  std::array<char, 256> device{};
};
static_assert(sizeof(DumpRequest) == 24 && sizeof(DumpAnswer) == 352);

}  // namespace mtcp::intercept
