#include "stack/port/dpdk/af_xdp/xdp_program.hh"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "guard_program.hh"
#include "redirect_program.hh"
#include "share_classifier.hh"
#include "share_program.hh"
#include "stack/port/dpdk/af_xdp/xdp_leftover.hh"
#include "stack/port/dpdk/af_xdp/xsk.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/interface/bpf_calls.hh"
#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/share/shared_ports.hh"
#include "stack/port/dpdk/share/sharing.hh"

extern "C" int mtcp_dpdk_close(int fd);

namespace mtcp::stack::dpdk {

namespace {

// Sockets by queue.
long create_sockets_map(std::uint32_t queues) {
  return create_map({BPF_MAP_TYPE_XSKMAP, sizeof(std::uint32_t), queues, 0, "mtcp_sockets"});
}

// BPF_F_XDP_HAS_FRAGS (Linux 5.18): it does not mind frames in several pieces.
constexpr std::uint32_t kHasFragments = 1U << 5;

// An IPv4 packet without a tag for one of `addresses` is dropped (af_packet/guard.bpf.c).
long load_guard(std::span<const std::uint32_t> addresses) {
  const auto room = static_cast<std::uint32_t>(std::max<std::size_t>(addresses.size(), 1));
  const Descriptor map(create_map({BPF_MAP_TYPE_HASH, sizeof(std::uint32_t), room, 0, "mtcp_addresses"}));
  bool complete = static_cast<bool>(map);
  const std::uint32_t nothing = 0;
  for (const std::uint32_t each : addresses) complete = complete && put(map, htonl(each), &nothing);
  if (!complete) return -1;
  return load_classifier(
      with_maps(guard_program::kCode, guard_program::kMaps, [&](std::string_view) { return map.number(); }),
      "mtcp_guard");
}

long load_for_all(const Descriptor& sockets) {
  return load_xdp(with_maps(redirect_program::kCode, redirect_program::kMaps,
                            [&](std::string_view) { return sockets.number(); }),
                  "mtcp_redirect", 0);
}

// The kernel takes a link off some time after the process that had it has ended.
long link_patiently(const Descriptor& program, std::uint32_t ifindex, std::uint32_t mode) {
  constexpr timespec kPause{0, 20'000'000};
  for (int i = 0;; ++i) {
    const long fd = link_xdp(program, ifindex, mode);
    if (fd >= 0 || errno != EBUSY || i == 50) return fd;
    if (remove_leftover_program(ifindex)) continue;
    system_call(SYS_nanosleep, reinterpret_cast<long>(&kPause), 0);
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
    case EOPNOTSUPP:
      return "the driver of " + interface + " has no XDP; write xdp=generic in the port";
    case EINVAL:
      return "this kernel cannot attach an XDP program to " + interface +
             " by a link; Linux 5.9 or later does";
    default:
      return std::string("no XDP program can be attached to ") + interface + ": " + strerror(error);
  }
}

}  // namespace

// The maps of a program that shares an interface: those of `ports`, and where there is XDP, the sockets.
static auto maps_of(const SharedPorts& ports, std::uint32_t sockets) {
  return [&ports, sockets](std::string_view map) {
    return map == "sockets" ? sockets : static_cast<std::uint32_t>(ports.maps()[map == "state" ? 0 : 1]);
  };
}

long load_for_some(const Descriptor& sockets, const SharedPorts& ports) {
  return load_xdp(with_maps(share_program::kCode, share_program::kMaps, maps_of(ports, sockets.number())),
                  "mtcp_share", kHasFragments);
}

long load_classifier_for_some(const SharedPorts& ports) {
  return load_classifier(with_maps(share_classifier::kCode, share_classifier::kMaps, maps_of(ports, 0)),
                         "mtcp_share");
}

// To no interface: a kernel that can says that there is none.
bool may_classify() {
  const Descriptor program(load_guard({}));
  if (!program) return false;
  constexpr std::uint32_t kNone = 0x7fffffff;
  const Descriptor link(link_classifier(program, kNone));
  return errno == ENODEV;
}

bool may_classify(const std::string& interface, std::string& message) {
  if (may_classify()) return true;
  message = "interface " + interface + " can't be shared with the kernel without XDP (" + strerror(errno) +
            "): it takes Linux 6.6 or later, and permission; " + with_capabilities({"net_raw", "net_admin", "bpf"});
  return false;
}

bool may_use_xdp(const std::string& port, std::string& message) {
  const std::string interface = interface_of(port);
  const Descriptor socket(system_call(SYS_socket, AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket && errno == EAFNOSUPPORT) {
    message = "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS); use net_af_packet0,iface=" + interface;
    return false;
  }
  if (socket && Descriptor(create_sockets_map(1))) return true;
  const std::string reason = strerror(errno);
  if (shares_without_xdp(port)) {  // as it would, with permission
    message = "no permission to share interface " + interface + " with the kernel (" + reason + "); " +
              with_capabilities({"net_raw", "net_admin", "bpf"});
    return false;
  }
  message = "no permission for AF_XDP on interface " + interface + " (" + reason + "); " +
            with_capabilities({"net_raw", "net_admin", "bpf", "ipc_lock"}) +
            "; or use net_af_packet0, which needs net_raw only";
  return false;
}

bool XdpProgram::attach(const std::string& interface, const Sharing& how, SharedPorts* shared, std::string& message) {
  std::uint32_t queues = 0;
  for (const Xsk* x : xsks()) queues = std::max(queues, x->queue + 1);
  const Descriptor map(create_sockets_map(queues));
  bool complete = static_cast<bool>(map);
  for (const Xsk* x : xsks()) complete = complete && put(map, x->queue, &x->fd);
  const Descriptor program(!complete ? -1 : shared != nullptr ? load_for_some(map, *shared) : load_for_all(map));
  if (!program) {
    message = std::string("the kernel does not take the XDP program: ") + strerror(errno);
    if (shared != nullptr && complete && errno == EINVAL) message += "; to share an interface takes Linux 5.18 or later";
    return false;
  }
  const std::uint32_t ifindex = xsks().front()->ifindex;
  const long fd = link_patiently(program, ifindex, how.generic ? XDP_FLAGS_SKB_MODE : how.native ? XDP_FLAGS_DRV_MODE : 0);
  if (fd < 0) {
    refused_ = errno == EOPNOTSUPP || errno == ERANGE || errno == ENOSPC || errno == ENOMEM;
    message = reason(interface, ifindex, errno);
    return false;
  }
  link_ = move_high(static_cast<int>(fd));
  return true;
}

bool XdpProgram::attach_classifier(const std::string& interface, const SharedPorts& shared, std::string& message) {
  const Descriptor program(load_classifier_for_some(shared));
  const long fd = program ? link_classifier(program, if_nametoindex(interface.c_str())) : -1;
  if (fd < 0) {
    message = std::string("the kernel does not take the classifier for ") + interface + ": " + strerror(errno);
    return false;
  }
  link_ = move_high(static_cast<int>(fd));
  return true;
}

bool XdpProgram::attach_guard(const std::string& interface, std::span<const std::uint32_t> addresses) {
  const Descriptor program(load_guard(addresses));
  const long fd = program ? link_classifier(program, if_nametoindex(interface.c_str())) : -1;
  if (fd >= 0) link_ = move_high(static_cast<int>(fd));
  return fd >= 0;
}

void XdpProgram::detach() {
  if (link_ >= 0) mtcp_dpdk_close(std::exchange(link_, -1));
}

}  // namespace mtcp::stack::dpdk
