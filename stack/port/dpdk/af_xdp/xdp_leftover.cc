#include "stack/port/dpdk/af_xdp/xdp_leftover.hh"

#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cstddef>
#include <vector>

#include "stack/port/dpdk/interface/bpf_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

struct Request {
  nlmsghdr header{};
  ifinfomsg interface {};
  std::array<std::byte, 64> attributes{};

  Request(std::uint16_t type, std::uint32_t ifindex) {
    header.nlmsg_type = type;
    header.nlmsg_flags = NLM_F_REQUEST;
    header.nlmsg_len = offsetof(Request, attributes);
    interface.ifi_family = AF_UNSPEC;
    interface.ifi_index = static_cast<int>(ifindex);
  }
  rtattr* add(std::uint16_t type, const void* value, std::size_t size) {
    auto* a = reinterpret_cast<rtattr*>(reinterpret_cast<std::byte*>(this) + header.nlmsg_len);
    a->rta_type = type;
    a->rta_len = static_cast<std::uint16_t>(RTA_LENGTH(size));
    if (size > 0) memcpy(RTA_DATA(a), value, size);
    header.nlmsg_len += static_cast<std::uint32_t>(RTA_ALIGN(a->rta_len));
    return a;
  }
};

// The kernel's answer; empty if there was none.
std::vector<std::byte> ask(const Request& request) {
  std::vector<std::byte> answer;
  const Descriptor socket(system_call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) return answer;
  const auto fd = static_cast<long>(socket.number());
  if (system_call(SYS_sendto, fd, arg(&request), request.header.nlmsg_len, 0, 0, 0) >= 0) {
    answer.resize(64 << 10);
    const long n =
        system_call(SYS_recvfrom, fd, arg(answer.data()), static_cast<long>(answer.size()), 0, 0, 0);
    answer.resize(n >= static_cast<long>(sizeof(nlmsghdr)) ? static_cast<std::size_t>(n) : 0);
  }
  return answer;
}

const rtattr* find(const void* first, std::size_t length, int type) {
  for (auto* a = static_cast<const rtattr*>(first); RTA_OK(a, length); a = RTA_NEXT(a, length))
    if ((a->rta_type & NLA_TYPE_MASK) == type) return a;
  return nullptr;
}

struct Attached {
  std::uint8_t mode = XDP_ATTACHED_NONE;
  std::uint32_t id = 0;
};

Attached attached_to(std::uint32_t ifindex) {
  Attached found;
  const auto answer = ask(Request(RTM_GETLINK, ifindex));
  if (answer.empty()) return found;
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (header->nlmsg_type != RTM_NEWLINK || header->nlmsg_len > answer.size()) return found;
  const auto* message = static_cast<const ifinfomsg*>(NLMSG_DATA(header));
  const rtattr* xdp = find(IFLA_RTA(message), IFLA_PAYLOAD(header), IFLA_XDP);
  if (xdp == nullptr) return found;
  const rtattr* mode = find(RTA_DATA(xdp), RTA_PAYLOAD(xdp), IFLA_XDP_ATTACHED);
  const rtattr* id = find(RTA_DATA(xdp), RTA_PAYLOAD(xdp), IFLA_XDP_PROG_ID);
  if (mode != nullptr) memcpy(&found.mode, RTA_DATA(mode), sizeof found.mode);
  if (id != nullptr) memcpy(&found.id, RTA_DATA(id), sizeof found.id);
  return found;
}

// Empty if the kernel does not tell.
std::string name_of(std::uint32_t program) {
  bpf_attr a{};
  a.prog_id = program;
  const Descriptor fd(bpf(BPF_PROG_GET_FD_BY_ID, a));
  if (!fd) return {};
  bpf_prog_info info{};
  bpf_attr query{};
  query.info.bpf_fd = fd.number();
  query.info.info_len = sizeof info;
  query.info.info = reinterpret_cast<std::uintptr_t>(&info);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, query) != 0) return {};
  return {info.name, strnlen(info.name, sizeof info.name)};
}

}  // namespace

std::string program_on(std::uint32_t ifindex) {
  const Attached there = attached_to(ifindex);
  if (there.id == 0) return "an XDP program";
  return "the XDP program " + name_of(there.id) + " (id " + std::to_string(there.id) + ")";
}

bool remove_leftover_program(std::uint32_t ifindex) {
  const Attached there = attached_to(ifindex);
  const std::string name = there.id == 0 ? "" : name_of(there.id);
  // libxdp's, and libbpf's before it. A dispatcher of libxdp's may have others behind it, and is left alone.
  if (name != "xsk_def_prog" && name != "xdp_sock_prog") return false;
  Request request(RTM_SETLINK, ifindex);
  const std::int32_t none = -1;
  const std::uint32_t mode = there.mode == XDP_ATTACHED_SKB ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
  request.header.nlmsg_flags |= NLM_F_ACK;
  rtattr* xdp = request.add(IFLA_XDP | NLA_F_NESTED, nullptr, 0);
  request.add(IFLA_XDP_FD, &none, sizeof none);
  request.add(IFLA_XDP_FLAGS, &mode, sizeof mode);
  xdp->rta_len = static_cast<std::uint16_t>(RTA_LENGTH(2 * RTA_SPACE(sizeof none)));
  const auto answer = ask(request);
  if (answer.size() < NLMSG_LENGTH(sizeof(nlmsgerr))) return false;
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  return header->nlmsg_type == NLMSG_ERROR && static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error == 0;
}

}  // namespace mtcp::stack::dpdk
