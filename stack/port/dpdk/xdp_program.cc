#include "stack/port/dpdk/xdp_program.hh"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "stack/port/dpdk/kernel_interface.hh"
#include "stack/port/dpdk/libc_calls.hh"
#include "stack/port/dpdk/xdp_leftover.hh"
#include "stack/port/dpdk/xsk.hh"

extern "C" int mtcp_dpdk_close(int fd);

namespace mtcp::stack::dpdk {

namespace {

template <typename T>
long arg(T* p) {
  return reinterpret_cast<long>(p);
}

long bpf(bpf_cmd command, bpf_attr& attributes) {
  return system_call(SYS_bpf, command, arg(&attributes), sizeof attributes);
}

// Closed with its owner; a link keeps what it needs.
class Descriptor {
 public:
  explicit Descriptor(long fd) : fd_(static_cast<int>(fd)) {}
  ~Descriptor() {
    if (fd_ >= 0) system_call(SYS_close, fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] std::uint32_t number() const { return static_cast<std::uint32_t>(fd_); }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Sockets by queue.
long create_map(std::uint32_t queues) {
  bpf_attr a{};
  a.map_type = BPF_MAP_TYPE_XSKMAP;
  a.key_size = a.value_size = sizeof(std::uint32_t);
  a.max_entries = queues;
  memcpy(a.map_name, "mtcp_sockets", 12);
  return bpf(BPF_MAP_CREATE, a);
}

bool put(const Descriptor& map, std::uint32_t queue, int socket) {
  bpf_attr a{};
  a.map_fd = map.number();
  a.key = reinterpret_cast<std::uintptr_t>(&queue);
  a.value = reinterpret_cast<std::uintptr_t>(&socket);
  return bpf(BPF_MAP_UPDATE_ELEM, a) == 0;
}

// return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
long load(const Descriptor& map) {
  const auto op = [](int code, std::uint8_t to, std::uint8_t from, std::int16_t offset, std::int32_t value) {
    bpf_insn i{};
    i.code = static_cast<std::uint8_t>(code);
    i.dst_reg = to & 15;
    i.src_reg = from & 15;
    i.off = offset;
    i.imm = value;
    return i;
  };
  const std::array program{
      op(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_2, BPF_REG_1, offsetof(xdp_md, rx_queue_index), 0),
      op(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, static_cast<std::int32_t>(map.number())),
      op(0, 0, 0, 0, 0),
      op(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, XDP_PASS),
      op(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map),
      op(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
  };
  static constexpr char kLicense[] = "BSD";
  bpf_attr a{};
  a.prog_type = BPF_PROG_TYPE_XDP;
  a.expected_attach_type = BPF_XDP;
  a.insns = reinterpret_cast<std::uintptr_t>(program.data());
  a.insn_cnt = program.size();
  a.license = reinterpret_cast<std::uintptr_t>(kLicense);
  memcpy(a.prog_name, "mtcp_redirect", 13);
  return bpf(BPF_PROG_LOAD, a);
}

long link(const Descriptor& program, std::uint32_t ifindex) {
  bpf_attr a{};
  a.link_create.prog_fd = program.number();
  a.link_create.target_ifindex = ifindex;
  a.link_create.attach_type = BPF_XDP;
  return bpf(BPF_LINK_CREATE, a);
}

// The kernel takes a link off some time after the process that had it has ended.
long link_patiently(const Descriptor& program, std::uint32_t ifindex) {
  constexpr timespec kPause{0, 20'000'000};
  for (int i = 0;; ++i) {
    const long fd = link(program, ifindex);
    if (fd >= 0 || errno != EBUSY || i == 50) return fd;
    if (remove_leftover_program(ifindex)) continue;
    system_call(SYS_nanosleep, arg(&kPause), 0);
  }
}

std::string reason(const std::string& interface, std::uint32_t ifindex, int error) {
  switch (error) {
    case EBUSY:
      return interface + " has " + program_on(ifindex) + " already; take it off: sudo ip link set " +
             interface + " xdp off";
    case ERANGE:
      return "the MTU of " + interface + " or of its peer is too large for XDP; run: sudo ip link set " +
             interface + " mtu 1500 (at both ends of a veth)";
    case ENOSPC:
      return "the other end of " + interface + " sends on more queues than " + interface +
             " receives on; run there: sudo ethtool -L NAME rx 1 tx 1";
    case EINVAL:
      return "this kernel cannot attach an XDP program to " + interface +
             " by a link; Linux 5.9 or later does";
    default:
      return std::string("no XDP program can be attached to ") + interface + ": " + strerror(error);
  }
}

}  // namespace

bool may_use_xdp(const std::string& interface, std::string& message) {
  const Descriptor socket(system_call(SYS_socket, AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket && errno == EAFNOSUPPORT) {
    message = "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS); use net_af_packet0,iface=" + interface;
    return false;
  }
  if (socket && Descriptor(create_map(1))) return true;
  message =
      "no permission for AF_XDP on interface " + interface + " (" + strerror(errno) +
      "); " +
      with_capabilities({"net_raw", "net_admin", "bpf", "ipc_lock"}) + "; or use net_af_packet0, which needs net_raw only";
  return false;
}

bool XdpProgram::attach(const std::string& interface, std::string& message) {
  std::uint32_t queues = 0;
  for (const Xsk* x : xsks()) queues = std::max(queues, x->queue + 1);
  const Descriptor map(create_map(queues));
  bool complete = static_cast<bool>(map);
  for (const Xsk* x : xsks()) complete = complete && put(map, x->queue, x->fd);
  const Descriptor program(complete ? load(map) : -1);
  if (!program) {
    message = std::string("the kernel does not take the XDP program: ") + strerror(errno);
    return false;
  }
  const std::uint32_t ifindex = xsks().front()->ifindex;
  const long fd = link_patiently(program, ifindex);
  if (fd < 0) {
    message = reason(interface, ifindex, errno);
    return false;
  }
  link_ = move_high(static_cast<int>(fd));
  return true;
}

void XdpProgram::detach() {
  if (link_ >= 0) mtcp_dpdk_close(std::exchange(link_, -1));
}

}  // namespace mtcp::stack::dpdk
