#include "stack/port/dpdk/interface/kernel_interface.hh"

#include <arpa/inet.h>
#include <ctype.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>

#include "stack/port/device.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

// Asks the kernel about an interface; the name has been checked to fit.
class Query {
 public:
  explicit Query(const std::string& name)
      : fd_(static_cast<int>(system_call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))) {
    memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  }
  ~Query() {
    if (fd_ >= 0) system_call(SYS_close, fd_);
  }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;
  [[nodiscard]] bool ioctl(unsigned long number) {
    return system_call(SYS_ioctl, fd_, static_cast<long>(number), reinterpret_cast<long>(&request)) >= 0;
  }
  [[nodiscard]] bool ethtool(void* argument) {
    request.ifr_data = static_cast<char*>(argument);
    return ioctl(SIOCETHTOOL);
  }
  ifreq request{};

 private:
  int fd_;
};

// A veth has as many queues of each direction, and calls none of them combined.
void pair_up(ethtool_channels& c) {
  const std::uint32_t pairs = std::min(c.rx_count, c.tx_count);
  c.combined_count += pairs;
  c.rx_count -= pairs;
  c.tx_count -= pairs;
  c.max_combined = std::max(c.max_combined + std::min(c.max_rx, c.max_tx), c.combined_count);
}

}  // namespace

// The af_xdp driver uses what is combined.
extern "C" int mtcp_dpdk_xdp_ioctl(int fd, unsigned long request, void* argument) {
  const long result = system_call(SYS_ioctl, fd, static_cast<long>(request), arg(argument));
  if (result < 0 || request != SIOCETHTOOL) return static_cast<int>(result);
  void* const asked = static_cast<const ifreq*>(argument)->ifr_data;
  std::uint32_t command;
  memcpy(&command, asked, sizeof command);
  if (command == ETHTOOL_GCHANNELS) pair_up(*static_cast<ethtool_channels*>(asked));
  return static_cast<int>(result);
}

std::string interface_of(const std::string& port) { return value_of(port, "iface"); }

std::string with_capabilities(std::initializer_list<const char*> names) {
  std::string list, service;
  for (const char* name : names) {
    list += (list.empty() ? "+" : ",+") + std::string(name);
    std::string upper = name;
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return static_cast<char>(toupper(c)); });
    service += (service.empty() ? "CAP_" : " CAP_") + upper;
  }
  return "run as root, or: sudo setpriv --reuid=USER --regid=GROUP --init-groups --inh-caps=" + list +
         " --ambient-caps=" + list + " mtcp-run ... (a systemd service: AmbientCapabilities=" + service +
         "; setcap does not go with LD_PRELOAD)";
}

bool check_interface(const std::string& port, std::uint32_t& mtu, std::string& message) {
  const std::string name = interface_of(port);
  if (name.empty()) {
    message = "\"" + port + "\" names no interface; write " + port.substr(0, port.find(',')) + ",iface=NAME";
    return false;
  }
  if (name.size() >= IFNAMSIZ) {
    message = "interface name " + name + " is too long";
    return false;
  }
  Query query(name);
  if (!query.ioctl(SIOCGIFFLAGS)) {
    message = "there is no network interface " + name + " here; list them with: ip -br link";
    return false;
  }
  if ((query.request.ifr_flags & IFF_UP) == 0) {
    message = "interface " + name + " is down; run: sudo ip link set " + name + " up";
    return false;
  }
  if (query.ioctl(SIOCGIFMTU)) mtu = std::min(mtu, static_cast<std::uint32_t>(query.request.ifr_mtu));
  return true;
}

Channels channels_of(const std::string& interface) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (!Query(interface).ethtool(&channels)) return {};
  pair_up(channels);
  return {std::max(1u, channels.rx_count + channels.combined_count), std::max(1u, channels.combined_count)};
}

std::vector<IpAddress> addresses_of(const std::string& interface) {
  std::vector<IpAddress> list;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return list;
  for (const ifaddrs* i = all; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || interface != i->ifa_name) continue;
    IpAddress a;
    if (i->ifa_addr->sa_family == AF_INET) {
      sockaddr_in in;
      memcpy(&in, i->ifa_addr, sizeof in);
      a = IpAddress::v4(ntohl(in.sin_addr.s_addr));
    } else if (i->ifa_addr->sa_family == AF_INET6) {
      sockaddr_in6 in;
      memcpy(&in, i->ifa_addr, sizeof in);
      memcpy(a.bytes.data(), &in.sin6_addr, a.bytes.size());
      if (IN6_IS_ADDR_LINKLOCAL(&in.sin6_addr)) continue;
    } else {
      continue;
    }
    list.push_back(a);
  }
  freeifaddrs(all);
  return list;
}

bool is_virtual(const std::string& interface) {
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  return Query(interface).ethtool(&info) && info.bus_info[0] == 0;
}

}  // namespace mtcp::stack::dpdk
