// Frames into and out of a memif ring. The driver stores every byte into lines that the receiver's core has in its cache, and
// waits for each; whole lines written past the caches cost a third of that between cores that share none (6.5 against 2.5 GB/s
// for 1500-byte frames where it was measured). Between cores that share their last cache it is the other way round: the receiver
// would have to fetch them from memory (10 against 13 GB/s). What is small goes the ordinary way in any case. The TCP checksum of
// what is large is made and checked while the bytes pass by, so that nobody reads them once more for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/packet/packet.hh"

namespace mtcp::stack::dpdk {

inline constexpr std::size_t kCacheLine = 64;
// From here on a frame passes the caches by: bytes. The lines of smaller ones are better left there: the receiver takes them.
inline constexpr std::size_t kLargeFrame = 384;

// Rounded up to whole cache lines: bytes.
[[nodiscard]] std::size_t whole_lines(std::size_t n);

// The way for what is large: not through the caches if they are not all CPUs' in common, as far as the kernel tells.
enum class Stores : std::uint8_t { cached, past_caches };
[[nodiscard]] Stores stores_for_this_machine();

// Copies a frame that fits to `to`, where there is `room` for that many bytes, and fills in its TCP checksum there if that is
// left to the device (kTxL4Offload); the packet stays as it is. True if end_streams() is due before the receiver is told.
bool copy_to_ring(std::byte* to, std::size_t room, const Packet& p, Stores stores);
void end_streams();

// Appends `n` bytes to a packet that has room for them. A large frame that comes as a whole is marked kRxL4Good if it is a TCP
// segment with the right checksum; any other is left to whoever looks at it.
void copy_from_ring(Packet& p, const std::byte* from, std::size_t n);

}  // namespace mtcp::stack::dpdk
