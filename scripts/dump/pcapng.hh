// Writes packets as pcapng (draft-ietf-opsawg-pcapng). libpcap reads that format but does not write it, and DPDK's rte_pcapng knows its
// own process's devices only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mtcp::dump {

struct Interface {
  std::string name, description, filter;
  std::uint32_t snap_length = 0;
};

struct PacketHead {
  std::uint32_t interface = 0;  // in the order of begin_interface()
  std::uint64_t time = 0;       // nanoseconds since 1970
  std::uint32_t length = 0;     // bytes, before it was cut
  bool outbound = false;
};

class PcapngWriter {
 public:
  // `fd` stays the caller's.
  explicit PcapngWriter(int fd) : fd_(fd) {}

  void begin(std::string_view program);
  void begin_interface(const Interface& interface);
  void packet(const PacketHead& head, std::span<const std::byte> bytes);
  void end_interface(std::uint32_t interface, std::uint64_t time, std::uint64_t received, std::uint64_t dropped);
  // Writes what waits. False, then and from now on: it can't be written, and `error` says why (errno).
  bool flush();
  [[nodiscard]] int error() const { return error_; }

 private:
  void word(std::uint32_t v);
  void bytes(const void* p, std::size_t n);  // filled up to a multiple of 4
  void option(std::uint16_t code, const void* p, std::size_t n);
  void option(std::uint16_t code, std::string_view text) { option(code, text.data(), text.size()); }
  void begin_block(std::uint32_t type);
  void end_block();
  void times(std::uint64_t time);

  int fd_;
  int error_ = 0;
  std::size_t block_ = 0;  // where the current block begins in buffer_
  std::vector<std::byte> buffer_;
};

}  // namespace mtcp::dump
