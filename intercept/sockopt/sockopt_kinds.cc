#include "intercept/sockopt/sockopt_kinds.hh"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace mtcp::intercept {
namespace {

struct Listed {
  int name;
  OptionKind kind;
  int usual = 0;  // of kinds `kernels` and `absent`
};

constexpr auto kKept = OptionKind::kept;
constexpr auto kKernels = OptionKind::kernels;
constexpr auto kPassed = OptionKind::passed;
constexpr auto kAbsent = OptionKind::absent;
constexpr auto kRefused = OptionKind::refused;

// By number, because most are younger than the headers of the systems on which this is built: include/uapi/asm-generic/socket.h.
constexpr Listed kSocketLevel[] = {
    {1, kKept},         // SO_DEBUG
    {5, kKernels},      // SO_DONTROUTE
    {6, kKept},         // SO_BROADCAST
    {11, kKept},        // SO_NO_CHECK
    {12, kKept},        // SO_PRIORITY
    {14, kKept},        // SO_BSDCOMPAT
    {16, kKept},        // SO_PASSCRED
    {17, kPassed},      // SO_PEERCRED
    {25, kKernels},     // SO_BINDTODEVICE: a name
    {26, kKernels},     // SO_ATTACH_FILTER: a program
    {27, kPassed},      // SO_DETACH_FILTER: on the stack there is none
    {31, kPassed},      // SO_PEERSEC
    {34, kKept},        // SO_PASSSEC
    {36, kKept},        // SO_MARK
    {40, kKept},        // SO_RXQ_OVFL
    {41, kKept},        // SO_WIFI_STATUS
    {42, kKernels, -1}, // SO_PEEK_OFF
    {43, kKept},        // SO_NOFCS
    {44, kKept},        // SO_LOCK_FILTER
    {45, kKept},        // SO_SELECT_ERR_QUEUE
    {46, kKept},        // SO_BUSY_POLL
    {48, kPassed},      // SO_BPF_EXTENSIONS
    {49, kKept},        // SO_INCOMING_CPU
    {50, kKernels},     // SO_ATTACH_BPF: a program
    {51, kKernels},     // SO_ATTACH_REUSEPORT_CBPF: a program
    {52, kKernels},     // SO_ATTACH_REUSEPORT_EBPF: a program
    {53, kKept},        // SO_CNX_ADVICE
    {56, kPassed},      // SO_INCOMING_NAPI_ID
    {59, kPassed},      // SO_PEERGROUPS
    {61, kKept},        // SO_TXTIME: of a stream Linux looks at no SCM_TXTIME either
    {62, kKernels},     // SO_BINDTOIFINDEX
    {68, kPassed},      // SO_DETACH_REUSEPORT_BPF
    {69, kKept},        // SO_PREFER_BUSY_POLL
    {70, kKept},        // SO_BUSY_POLL_BUDGET
    {71, kPassed},      // SO_NETNS_COOKIE
    {73, kKept},        // SO_RESERVE_MEM
    {74, kKept},        // SO_TXREHASH
    {75, kKept},        // SO_RCVMARK
    {76, kKept},        // SO_PASSPIDFD
    {77, kPassed},      // SO_PEERPIDFD
    {82, kKept},        // SO_RCVPRIORITY
    {83, kKept},        // SO_PASSRIGHTS
};

// include/uapi/linux/in.h
constexpr Listed kIpLevel[] = {
    {3, kPassed},       // IP_HDRINCL
    {4, kKernels},      // IP_OPTIONS: a list
    {5, kPassed},       // IP_ROUTER_ALERT
    {6, kKept},         // IP_RECVOPTS
    {7, kKept},         // IP_RETOPTS
    {8, kKept},         // IP_PKTINFO
    {9, kPassed},       // IP_PKTOPTIONS: nothing, of a connection
    {10, kKernels, 1},  // IP_MTU_DISCOVER: IP_PMTUDISC_WANT, and IP_PMTUDISC_DO is the same for TCP
    {11, kKernels},     // IP_RECVERR
    {12, kKept},        // IP_RECVTTL
    {13, kKept},        // IP_RECVTOS
    {15, kKept},        // IP_FREEBIND
    {16, kRefused},     // IP_IPSEC_POLICY
    {17, kRefused},     // IP_XFRM_POLICY
    {18, kKept},        // IP_PASSSEC
    {19, kKernels},     // IP_TRANSPARENT
    {20, kKept},        // IP_RECVORIGDSTADDR
    {21, kKernels},     // IP_MINTTL
    {22, kPassed},      // IP_NODEFRAG
    {23, kKept},        // IP_CHECKSUM
    {24, kKept},        // IP_BIND_ADDRESS_NO_PORT
    {25, kPassed},      // IP_RECVFRAGSIZE
    {26, kKept},        // IP_RECVERR_RFC4884
    {32, kPassed},      // IP_MULTICAST_IF
    {33, kKept},        // IP_MULTICAST_TTL
    {34, kKept},        // IP_MULTICAST_LOOP
    {35, kPassed}, {36, kPassed}, {37, kPassed}, {38, kPassed}, {39, kPassed}, {40, kPassed}, {41, kPassed},  // memberships
    {42, kPassed}, {43, kPassed}, {44, kPassed}, {45, kPassed}, {46, kPassed}, {47, kPassed}, {48, kPassed},
    {49, kKept},        // IP_MULTICAST_ALL
    {50, kKernels},     // IP_UNICAST_IF
    {51, kKernels},     // IP_LOCAL_PORT_RANGE
    {52, kPassed},      // IP_PROTOCOL
    {80, kPassed},      // SO_ORIGINAL_DST
};

// include/uapi/linux/tcp.h
constexpr Listed kTcpLevel[] = {
    {14, kKernels},   // TCP_MD5SIG: keys
    {16, kAbsent},    // TCP_THIN_LINEAR_TIMEOUTS
    {17, kKept},      // TCP_THIN_DUPACK: Linux looks at it no more
    {19, kKernels},   // TCP_REPAIR
    {20, kPassed}, {21, kPassed}, {22, kPassed},  // TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS: without TCP_REPAIR
    {27, kAbsent},    // TCP_SAVE_SYN
    {28, kRefused},   // TCP_SAVED_SYN
    {29, kPassed},    // TCP_REPAIR_WINDOW
    {31, kRefused},   // TCP_ULP
    {32, kKernels},   // TCP_MD5SIG_EXT: keys
    {35, kRefused},   // TCP_ZEROCOPY_RECEIVE
    {37, kAbsent},    // TCP_TX_DELAY
    {38, kKernels}, {39, kKernels}, {40, kKernels}, {41, kKernels}, {42, kKernels},  // TCP_AO: keys
    {43, kPassed},    // TCP_IS_MPTCP
    {44, kRefused},   // TCP_RTO_MAX_MS
    {45, kRefused},   // TCP_RTO_MIN_US
    {46, kRefused},   // TCP_DELACK_MAX_US
};

// include/uapi/linux/in6.h. IPv6 goes over the wire within a process only, where nobody sees a hop limit or a class.
constexpr Listed kIpv6Level[] = {
    {1, kRefused},      // IPV6_ADDRFORM
    {2, kKept}, {3, kKept}, {4, kKernels}, {5, kKernels}, {6, kKernels}, {7, kPassed}, {8, kKept},  // RFC 2292's
    {11, kKept},        // IPV6_FLOWINFO
    {16, kKept},        // IPV6_UNICAST_HOPS
    {17, kPassed},      // IPV6_MULTICAST_IF
    {18, kKept},        // IPV6_MULTICAST_HOPS
    {19, kKept},        // IPV6_MULTICAST_LOOP
    {20, kPassed}, {21, kPassed},  // memberships
    {22, kPassed},      // IPV6_ROUTER_ALERT
    {23, kKept},        // IPV6_MTU_DISCOVER
    {24, kPassed},      // IPV6_MTU
    {25, kKept},        // IPV6_RECVERR
    {27, kPassed}, {28, kPassed},  // anycast
    {29, kKept},        // IPV6_MULTICAST_ALL
    {30, kKept},        // IPV6_ROUTER_ALERT_ISOLATE
    {31, kKept},        // IPV6_RECVERR_RFC4884
    {32, kKernels},     // IPV6_FLOWLABEL_MGR: a structure
    {33, kKept},        // IPV6_FLOWINFO_SEND
    {34, kRefused}, {35, kRefused},  // policies
    {36, kKept},        // IPV6_HDRINCL
    {42, kPassed}, {43, kPassed}, {44, kPassed}, {45, kPassed}, {46, kPassed}, {47, kPassed}, {48, kPassed},
    {49, kKept},        // IPV6_RECVPKTINFO
    {50, kKernels},     // IPV6_PKTINFO: a structure
    {51, kKept},        // IPV6_RECVHOPLIMIT
    {52, kKept},        // IPV6_HOPLIMIT
    {53, kKept},        // IPV6_RECVHOPOPTS
    {54, kKernels}, {55, kKernels},  // headers
    {56, kKept},        // IPV6_RECVRTHDR
    {57, kKernels},     // IPV6_RTHDR
    {58, kKept},        // IPV6_RECVDSTOPTS
    {59, kKernels},     // IPV6_DSTOPTS
    {60, kKept},        // IPV6_RECVPATHMTU
    {61, kPassed},      // IPV6_PATHMTU
    {62, kKept},        // IPV6_DONTFRAG
    {66, kKept},        // IPV6_RECVTCLASS
    {67, kKept},        // IPV6_TCLASS
    {70, kKept},        // IPV6_AUTOFLOWLABEL
    {72, kKept},        // IPV6_ADDR_PREFERENCES
    {73, kKernels},     // IPV6_MINHOPCOUNT
    {74, kKept},        // IPV6_ORIGDSTADDR
    {75, kKernels},     // IPV6_TRANSPARENT
    {76, kKernels},     // IPV6_UNICAST_IF
    {77, kKept},        // IPV6_RECVFRAGSIZE
    {78, kKept},        // IPV6_FREEBIND
    {80, kPassed},      // IP6T_SO_ORIGINAL_DST
};

template <std::size_t N>
const Listed* find_in(const Listed (&list)[N], int name) {
  const auto* found = std::lower_bound(std::begin(list), std::end(list), name,
                                       [](const Listed& l, int n) { return l.name < n; });
  return found != std::end(list) && found->name == name ? found : nullptr;
}

const Listed* find(int level, int name) {
  switch (level) {
    case SOL_SOCKET: return find_in(kSocketLevel, name);
    case IPPROTO_IP: return find_in(kIpLevel, name);
    case IPPROTO_TCP: return find_in(kTcpLevel, name);
    case IPPROTO_IPV6: return find_in(kIpv6Level, name);
    default: return nullptr;
  }
}

// Programs, keys and structures: any value asks for something. IP's and IPv6's lists of options may be empty.
bool always_asks(int level, int name) {
  if (level == SOL_SOCKET) return name == 26 || (name >= 50 && name <= 52);
  if (level == IPPROTO_TCP) return name == 14 || name == 32 || (name >= 38 && name <= 42);
  return level == IPPROTO_IPV6 && (name == 32 || name == 50);
}

bool is_list(int level, int name) {
  if (level == IPPROTO_IP) return name == 4;
  return level == IPPROTO_IPV6 && (name == 4 || name == 5 || name == 6 || name == 54 || name == 55 || name == 57 || name == 59);
}

}  // namespace

OptionKind kind_of_option(int level, int name) {
  const Listed* found = find(level, name);
  if (found != nullptr) return found->kind;
  // Of other protocols (TLS, MPTCP, ...) and of their levels a TCP socket knows nothing, and says so.
  const bool known = level == SOL_SOCKET || level == IPPROTO_IP || level == IPPROTO_TCP || level == IPPROTO_IPV6;
  return known ? OptionKind::unknown : OptionKind::passed;
}

bool is_usual(int level, int name, const void* v, socklen_t n) {
  const Listed* found = find(level, name);
  if (found == nullptr || always_asks(level, name)) return false;
  if (is_list(level, name)) {  // the end of the list is a zero
    const auto* bytes = static_cast<const unsigned char*>(v);
    return std::all_of(bytes, bytes + n, [](unsigned char b) { return b == 0; });
  }
  if (level == SOL_SOCKET && name == SO_BINDTODEVICE) return n == 0 || *static_cast<const char*>(v) == '\0';
  std::int64_t value = 0;  // an int, a byte, or a structure of two words of which the first says what is wanted
  if (n == sizeof value) {
    std::memcpy(&value, v, sizeof value);
    if (found->usual >= 0) value &= UINT32_MAX;
  } else if (n >= sizeof(int)) {
    int word = 0;
    std::memcpy(&word, v, sizeof word);
    value = word;
  } else if (n > 0) {
    value = *static_cast<const unsigned char*>(v);
  }
  constexpr int kMtuDiscover = 10, kAlways = 2;  // IP_PMTUDISC_DO
  if (level == IPPROTO_IP && name == kMtuDiscover && value == kAlways) return true;
  return value == found->usual;
}

}  // namespace mtcp::intercept
