// The system call bpf(), as far as the programs on an interface need it.
#pragma once

#include <linux/bpf.h>
#include <sys/syscall.h>

#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

// Closed with its owner; a link keeps what it needs.
class Descriptor {
 public:
  explicit Descriptor(long fd) : fd_(static_cast<int>(fd)) {}
  ~Descriptor() {
    if (fd_ >= 0) system_call(SYS_close, fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] std::uint32_t number() const { return static_cast<std::uint32_t>(fd_); }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

long bpf(bpf_cmd command, bpf_attr& attributes);

// The following return a descriptor, or -1 and errno.
struct MapShape {
  bpf_map_type type;
  std::uint32_t value_size, entries, flags;
  std::string_view name;  // 15 characters at most
};
long create_map(const MapShape& shape);
bool put(const Descriptor& map, std::uint32_t key, const void* value);
long load_xdp(std::span<const std::uint64_t> code, std::string_view name, std::uint32_t flags);
long load_classifier(std::span<const std::uint64_t> code, std::string_view name);
long load_socket_filter(std::span<const std::uint64_t> code, std::string_view name);
// An embedded program (embed.py) with the maps that it uses; `number_of`: a map's descriptor, by the name
// that it has in the source.
template <std::size_t N, typename Maps, typename NumberOf>
[[nodiscard]] std::array<std::uint64_t, N> with_maps(std::array<std::uint64_t, N> code, const Maps& maps,
                                                     NumberOf number_of) {
  for (const auto& use : maps) {
    auto i = std::bit_cast<bpf_insn>(code[use.instruction]);
    i.src_reg = BPF_PSEUDO_MAP_FD;
    i.imm = static_cast<std::int32_t>(number_of(std::string_view(use.map)));
    code[use.instruction] = std::bit_cast<std::uint64_t>(i);
  }
  return code;
}
// `mode`: XDP_FLAGS_*_MODE, or 0 for the driver's if it has one.
long link_xdp(const Descriptor& program, std::uint32_t ifindex, std::uint32_t mode);
// For all that the interface receives, before it is anybody's (tcx, Linux 6.6).
long link_classifier(const Descriptor& program, std::uint32_t ifindex);

}  // namespace mtcp::stack::dpdk
