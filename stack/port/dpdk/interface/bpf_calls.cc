#include "stack/port/dpdk/interface/bpf_calls.hh"

#include <string.h>

#include <algorithm>

namespace mtcp::stack::dpdk {

namespace {

template <std::size_t N>
void copy_name(char (&to)[N], std::string_view name) {
  memcpy(to, name.data(), std::min(name.size(), N - 1));
}

}  // namespace

long bpf(bpf_cmd command, bpf_attr& attributes) {
  return system_call(SYS_bpf, command, reinterpret_cast<long>(&attributes), sizeof attributes);
}

long create_map(const MapShape& shape) {
  bpf_attr a{};
  a.map_type = shape.type;
  a.key_size = sizeof(std::uint32_t);
  a.value_size = shape.value_size;
  a.max_entries = shape.entries;
  a.map_flags = shape.flags;
  copy_name(a.map_name, shape.name);
  return bpf(BPF_MAP_CREATE, a);
}

bool put(const Descriptor& map, std::uint32_t key, const void* value) {
  bpf_attr a{};
  a.map_fd = map.number();
  a.key = reinterpret_cast<std::uintptr_t>(&key);
  a.value = reinterpret_cast<std::uintptr_t>(value);
  return bpf(BPF_MAP_UPDATE_ELEM, a) == 0;
}

namespace {

long load(bpf_attr& a, std::span<const std::uint64_t> code, std::string_view name) {
  static constexpr char kLicense[] = "BSD";
  a.insns = reinterpret_cast<std::uintptr_t>(code.data());
  a.insn_cnt = static_cast<std::uint32_t>(code.size());
  a.license = reinterpret_cast<std::uintptr_t>(kLicense);
  copy_name(a.prog_name, name);
  return bpf(BPF_PROG_LOAD, a);
}

}  // namespace

long load_xdp(std::span<const std::uint64_t> code, std::string_view name, std::uint32_t flags) {
  bpf_attr a{};
  a.prog_type = BPF_PROG_TYPE_XDP;
  a.expected_attach_type = BPF_XDP;
  a.prog_flags = flags;
  return load(a, code, name);
}

long load_classifier(std::span<const std::uint64_t> code, std::string_view name) {
  bpf_attr a{};
  a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
  return load(a, code, name);
}

long load_socket_filter(std::span<const std::uint64_t> code, std::string_view name) {
  bpf_attr a{};
  a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  return load(a, code, name);
}

namespace {

long link_to(const Descriptor& program, std::uint32_t ifindex, std::uint32_t type, std::uint32_t flags) {
  bpf_attr a{};
  a.link_create.prog_fd = program.number();
  a.link_create.target_ifindex = ifindex;
  a.link_create.attach_type = type;
  a.link_create.flags = flags;
  return bpf(BPF_LINK_CREATE, a);
}

}  // namespace

long link_xdp(const Descriptor& program, std::uint32_t ifindex, std::uint32_t mode) { return link_to(program, ifindex, BPF_XDP, mode); }

long link_classifier(const Descriptor& program, std::uint32_t ifindex) {
  constexpr std::uint32_t kTcxIngress = 46;  // not in Debian 12's header
  return link_to(program, ifindex, kTcxIngress, 0);
}

}  // namespace mtcp::stack::dpdk
