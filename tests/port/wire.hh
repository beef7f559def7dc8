// A veth pair in a network namespace of the test's own, the kernel at its other end.
#pragma once

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "tests/need_root.hh"
#include "tests/port/process.hh"

namespace mtcp::test {

inline void run(const char* command) {
  if (system(command) != 0) {
    fprintf(stderr, "failed: %s\n", command);
    _exit(1);
  }
}

// Moves the process into a namespace with ours <-> peer; it ends with the process. The kernel
// is 10.77.0.1 on peer and believes that 10.77.0.2 is at ours.
inline void make_wire() {
  EXPECT(unshare(CLONE_NEWNET) == 0);
  run("ip link add ours type veth peer name peer && ip link set ours address 02:00:00:00:00:02 && "
      "ip addr add 10.77.0.1/24 dev peer && ip link set ours up && ip link set peer up && "
      "ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev peer nud permanent && sysctl -qw "
      "net.ipv6.conf.all.disable_ipv6=1");
}

inline const char* const kPort = "net_af_packet0,iface=ours";
inline const char* const kXdpPort = "net_af_xdp0,iface=ours";

inline int packet_socket(const char* interface, std::uint16_t protocol = 0x88b5) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(protocol));
  sockaddr_ll a{};
  a.sll_family = AF_PACKET;
  a.sll_protocol = htons(protocol);
  a.sll_ifindex = static_cast<int>(if_nametoindex(interface));
  EXPECT(fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
  return fd;
}

inline std::string raw_frame(const std::string& text, std::size_t size = 60) {
  std::string f("\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x88\xb5", 14);
  f += text;
  f.resize(std::max(size, f.size()));
  return f;
}

inline bool kernel_receives(int fd, const std::string& text) {
  char buffer[2048];
  const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
  return n >= static_cast<ssize_t>(14 + text.size()) && memcmp(buffer + 14, text.data(), text.size()) == 0;
}

}  // namespace mtcp::test
