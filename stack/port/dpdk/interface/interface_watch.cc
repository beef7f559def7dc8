#include "stack/port/dpdk/interface/interface_watch.hh"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>

#include "stack/port/dpdk/device_state.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr Duration kLinkInterval = milliseconds(100);
constexpr Duration kAddressInterval = seconds(1);

// A socket for questions.
class Asking {
 public:
  Asking(int domain, int type, int protocol)
      : fd_(static_cast<int>(system_call(SYS_socket, domain, type | SOCK_CLOEXEC, protocol))) {}
  ~Asking() {
    if (fd_ >= 0) system_call(SYS_close, fd_);
  }
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] bool ioctl(unsigned long number, void* argument) const {
    return system_call(SYS_ioctl, fd_, static_cast<long>(number), reinterpret_cast<long>(argument)) >= 0;
  }

 private:
  int fd_;
};

// As the kernel, which sends as soon as there is a carrier: that the interface is running (RFC 2863) it says up to a second later.
bool has_carrier(const Asking& kernel, ifreq request) {
  ethtool_value link{.cmd = ETHTOOL_GLINK, .data = 0};
  request.ifr_data = reinterpret_cast<char*>(&link);
  return kernel.ioctl(SIOCETHTOOL, &request) && link.data != 0;
}

std::string text_of(std::uint32_t address) {
  char text[INET_ADDRSTRLEN];
  const std::uint32_t network = htonl(address);
  return inet_ntop(AF_INET, &network, text, sizeof text);
}

std::uint32_t ipv4_of(const sockaddr& a) {
  sockaddr_in in;
  memcpy(&in, &a, sizeof in);
  return ntohl(in.sin_addr.s_addr);
}

// With its addresses, one entry each.
std::vector<ifreq> kernel_addresses(const Asking& kernel) {
  ifconf list{};
  if (!kernel.ioctl(SIOCGIFCONF, &list)) return {};
  std::vector<ifreq> entries(static_cast<std::size_t>(list.ifc_len) / sizeof(ifreq) + 8);
  list.ifc_len = static_cast<int>(entries.size() * sizeof(ifreq));
  list.ifc_req = entries.data();
  if (!kernel.ioctl(SIOCGIFCONF, &list)) return {};
  entries.resize(static_cast<std::size_t>(list.ifc_len) / sizeof(ifreq));
  return entries;
}

bool forwards(const std::string& interface) {
  char value = '0';
  (void)read_beginning("/proc/sys/net/ipv4/conf/" + interface + "/forwarding", {&value, 1});
  return value != '0';
}

// Whether the kernel has a way to it, which is another's.
bool has_route(std::uint32_t address) {
  struct {
    nlmsghdr head;
    rtmsg route;
    rtattr attribute;
    std::uint32_t destination;
  } question{};
  question.head = {.nlmsg_len = sizeof question, .nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST};
  question.route.rtm_family = AF_INET;
  question.route.rtm_dst_len = 32;
  question.attribute = {.rta_len = RTA_LENGTH(sizeof address), .rta_type = RTA_DST};
  question.destination = htonl(address);
  const Asking kernel(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  if (system_call(SYS_sendto, kernel.fd(), reinterpret_cast<long>(&question), sizeof question, 0, 0, 0) < 0) return false;
  alignas(nlmsghdr) std::array<std::byte, 2048> answer;
  const long n = system_call(SYS_recvfrom, kernel.fd(), reinterpret_cast<long>(answer.data()), answer.size(), MSG_DONTWAIT, 0, 0);
  if (n < static_cast<long>(sizeof(nlmsghdr) + sizeof(rtmsg))) return false;
  nlmsghdr head;
  rtmsg route;
  memcpy(&head, answer.data(), sizeof head);
  memcpy(&route, answer.data() + NLMSG_HDRLEN, sizeof route);
  return head.nlmsg_type == RTM_NEWROUTE && route.rtm_type == RTN_UNICAST;
}

}  // namespace

std::string interface_of_socket(int fd) {
  sockaddr_ll address{};
  socklen_t size = sizeof address;
  ifreq request{};
  if (system_call(SYS_getsockname, fd, reinterpret_cast<long>(&address), reinterpret_cast<long>(&size)) != 0) return {};
  request.ifr_ifindex = address.sll_ifindex;
  if (!Asking(AF_INET, SOCK_DGRAM, 0).ioctl(SIOCGIFNAME, &request)) return {};
  return {request.ifr_name, strnlen(request.ifr_name, sizeof request.ifr_name)};
}

std::string shared_address(const std::vector<std::uint32_t>& addresses) {
  const Asking kernel(AF_INET, SOCK_DGRAM, 0);
  for (ifreq& entry : kernel_addresses(kernel)) {
    const std::uint32_t address = ipv4_of(entry.ifr_addr);
    if (std::ranges::find(addresses, address) == addresses.end()) continue;
    std::string interface(entry.ifr_name, strnlen(entry.ifr_name, sizeof entry.ifr_name));
    const int length = kernel.ioctl(SIOCGIFNETMASK, &entry) ? std::popcount(ipv4_of(entry.ifr_netmask)) : 32;
    interface.resize(std::min(interface.find(':'), interface.size()));  // the rest is the address's label
    const std::string text = text_of(address);
    return "the stack's address " + text + " is the kernel's as well, on " + interface +
           ", and both would answer; run: sudo ip addr del " + text + "/" + std::to_string(length) + " dev " + interface;
  }
  return {};
}

std::string forwarded_address(const std::string& interface, const std::vector<std::uint32_t>& addresses) {
  if (addresses.empty() || !forwards(interface)) return {};
  const auto at = std::ranges::find_if(addresses, has_route);
  if (at == addresses.end()) return {};
  const std::string text = text_of(*at);
  return "the kernel forwards on " + interface + " (net.ipv4.conf." + interface + ".forwarding) and would send on what comes for " +
         text + ", and its senders elsewhere; run: sudo ip route add blackhole " + text;
}

std::shared_ptr<LinkWatch> DeviceState::watch(const std::string& interface) {
  const std::lock_guard guard(link_lock);
  std::shared_ptr<LinkWatch> there = link.lock();
  if (there == nullptr || !there->is_of(getpid(), interface)) link = there = std::make_shared<LinkWatch>(getpid(), interface);
  return there;
}

void LinkWatch::look_now(Time now) {
  next_.store(now + kLinkInterval, std::memory_order_relaxed);
  ifreq request{};
  memcpy(request.ifr_name, name_.data(), std::min(name_.size(), sizeof request.ifr_name - 1));
  const Asking kernel(AF_INET, SOCK_DGRAM, 0);
  if (kernel.fd() < 0) return;  // no descriptor left: as before
  const bool there = kernel.ioctl(SIOCGIFFLAGS, &request);
  if (!there && errno == ENODEV) gone_.store(true, std::memory_order_relaxed);
  const unsigned flags = there ? static_cast<unsigned short>(request.ifr_flags) : 0U;
  up_.store((flags & IFF_UP) != 0 && ((flags & IFF_RUNNING) != 0 || has_carrier(kernel, request)), std::memory_order_relaxed);
  if (kernel.ioctl(SIOCGIFMTU, &request)) mtu_.store(static_cast<std::uint32_t>(request.ifr_mtu), std::memory_order_relaxed);
}

void AddressWatch::look(Time now) {
  if (now < next_) return;
  next_ = now + kAddressInterval;
  std::string shared = shared_address(addresses_);
  std::string forwarded = guarded_ ? "" : forwarded_address(interface_, addresses_);
  if (!shared.empty() && shared != shared_) {
    notice_ = {shared, true};
    next_ = {};  // the other one, if any, next time
  } else if (!forwarded.empty() && forwarded != forwarded_) {
    notice_ = {forwarded, false};
    forwarded_ = std::move(forwarded);
  } else if (forwarded.empty()) {
    forwarded_.clear();
  }
  shared_ = std::move(shared);
}

}  // namespace mtcp::stack::dpdk
