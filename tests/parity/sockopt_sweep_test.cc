// Every option of Linux, in every state: what can be read can be set to what was read, or it is one that Linux does not let
// anybody set either; and what was set is read back. So a runtime can copy the options of one socket to another.
#include <climits>
#include <cstring>
#include <ctime>
#include <functional>
#include <iomanip>

#include "tests/parity/control_message.hh"
#include "tests/parity/net.hh"

using namespace parity;

namespace {

struct Name {
  int level;
  int number;
  friend bool operator==(const Name&, const Name&) = default;
};
std::ostream& operator<<(std::ostream& out, const Name& n) { return out << "level " << n.level << " option " << n.number; }

// Linux sets none of these, or not to what it says itself.
constexpr Name kReadOnly[] = {
    {SOL_SOCKET, SO_TYPE},     {SOL_SOCKET, SO_ERROR},          {SOL_SOCKET, SO_PEERCRED}, {SOL_SOCKET, SO_SNDLOWAT},
    {SOL_SOCKET, SO_PEERNAME}, {SOL_SOCKET, SO_ACCEPTCONN},     {SOL_SOCKET, SO_PROTOCOL}, {SOL_SOCKET, SO_DOMAIN},
    {SOL_SOCKET, 48},  // SO_BPF_EXTENSIONS
    {SOL_SOCKET, 55},  // SO_MEMINFO
    {SOL_SOCKET, 56},  // SO_INCOMING_NAPI_ID
    {SOL_SOCKET, 57},  // SO_COOKIE
    {SOL_SOCKET, 59},  // SO_PEERGROUPS
    {SOL_SOCKET, 71},  // SO_NETNS_COOKIE
    {SOL_SOCKET, 73},  // SO_RESERVE_MEM: with memory cgroups only
    {SOL_SOCKET, 26},  // SO_GET_FILTER: the number sets one
    {SOL_SOCKET, SO_BINDTODEVICE},  // a name where there may be none
    {IPPROTO_IP, IP_HDRINCL},  {IPPROTO_IP, IP_ROUTER_ALERT},   {IPPROTO_IP, IP_MTU},      {IPPROTO_IP, IP_NODEFRAG},
    {IPPROTO_IP, IP_PKTOPTIONS},
    {IPPROTO_IP, 25},  // IP_RECVFRAGSIZE
    {IPPROTO_IP, IP_MULTICAST_IF}, {IPPROTO_IP, IP_MULTICAST_TTL},  // of a stream
    {IPPROTO_IP, 52},  // IP_PROTOCOL
    {IPPROTO_TCP, TCP_INFO},   {IPPROTO_TCP, TCP_TIMESTAMP},
    {IPPROTO_TCP, TCP_MAXSEG},  // the loopback interface's is more than can be set
    {IPPROTO_TCP, TCP_WINDOW_CLAMP},  // a listener's 0 is for undecided ones
    {IPPROTO_TCP, TCP_REPAIR},  // not while it listens
    {IPPROTO_TCP, 26},  // TCP_CC_INFO
    {IPPROTO_TCP, 23}, {IPPROTO_TCP, 30}, {IPPROTO_TCP, 33}, {IPPROTO_TCP, 34},  // Fast Open: before the connection
    {IPPROTO_TCP, 28},  // TCP_SAVED_SYN
    {IPPROTO_TCP, 31},  // TCP_ULP
    {IPPROTO_TCP, 35},  // TCP_ZEROCOPY_RECEIVE
    {IPPROTO_TCP, 43},  // TCP_IS_MPTCP
    {IPPROTO_IPV6, 24},  // IPV6_MTU
    {IPPROTO_IPV6, 1},  // IPV6_ADDRFORM: of mapped addresses
    {IPPROTO_IPV6, 7}, {IPPROTO_IPV6, 17}, {IPPROTO_IPV6, 18}, {IPPROTO_IPV6, 22}, {IPPROTO_IPV6, 61}, {IPPROTO_IPV6, 77},
    {IPPROTO_IPV6, IPV6_V6ONLY},  // before bind only
    {IPPROTO_IPV6, 6},  // IPV6_2292PKTOPTIONS
    {IPPROTO_IPV6, 36},  // IPV6_HDRINCL
};

bool is_read_only(Name n) {
  for (const Name& each : kReadOnly) {
    if (each == n) return true;
  }
  return false;
}

struct Sockets {
  explicit Sockets(int family)
      : fresh(stream_socket(family)), bound(bound_socket(family)), listening(listener(8, family)), pair(connected_pair(family)) {}
  Fd fresh, bound, listening;
  Pair pair;
};

struct Value {
  char bytes[256] = {};
  socklen_t size = 0;
};

bool get(int fd, Name n, Value& value) {
  value.size = sizeof value.bytes;
  return ::getsockopt(fd, n.level, n.number, value.bytes, &value.size) == 0;
}

void for_each_option(const std::function<void(Name)>& visit) {
  for (const int level : {int{SOL_SOCKET}, int{IPPROTO_IP}, int{IPPROTO_TCP}, int{IPPROTO_IPV6}}) {
    for (int number = 0; number < 100; ++number) visit({level, number});
  }
}

void expect_settable_to_itself(int from, int to, const char* state) {
  for_each_option([&](Name n) {
    Value value;
    if (is_read_only(n) || !get(from, n, value)) return;
    CAPTURE(n, state, value.size);
    REQUIRE(error_of(::setsockopt(to, n.level, n.number, value.bytes, value.size)) == 0);
  });
}

}  // namespace

TEST_CASE("option sweep: what can be read can be set to that, in every state", "[sockopt][sweep]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const Sockets s(family);
  expect_settable_to_itself(s.fresh, s.fresh, "fresh");
  expect_settable_to_itself(s.bound, s.bound, "bound");
  expect_settable_to_itself(s.listening, s.listening, "listening");
  expect_settable_to_itself(s.pair.client, s.pair.client, "connected");
  expect_settable_to_itself(s.pair.server, s.pair.server, "accepted");
}

TEST_CASE("option sweep: all options of a listener can be copied to what it accepts, and of a connection to the next", "[sockopt][sweep]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const Sockets s(family);
  expect_settable_to_itself(s.listening, s.pair.server, "from the listener to the accepted");
  expect_settable_to_itself(s.pair.client, s.pair.server, "from one end to the other");
  expect_settable_to_itself(s.pair.client, s.fresh, "from a connection to a fresh one");
  REQUIRE(send_all(s.pair.client, "still there"));
  REQUIRE(receive_exactly(s.pair.server, 11) == "still there");
}

namespace {

struct Setting {
  Name name;
  int value;
};
// Kept as they were set, at any time.
constexpr Setting kSettings[] = {
    {{SOL_SOCKET, SO_REUSEADDR}, 1},    {{SOL_SOCKET, SO_KEEPALIVE}, 1},   {{SOL_SOCKET, SO_OOBINLINE}, 1},
    {{SOL_SOCKET, SO_PRIORITY}, 5},     {{SOL_SOCKET, SO_MARK}, 77},       {{SOL_SOCKET, SO_BROADCAST}, 1},
    {{SOL_SOCKET, SO_RCVLOWAT}, 7},     {{SOL_SOCKET, 44}, 1},             {{SOL_SOCKET, 74}, 0},
    {{SOL_SOCKET, SO_BUSY_POLL}, 20},
    {{IPPROTO_IP, IP_TOS}, 0x10},       {{IPPROTO_IP, IP_TTL}, 33},        {{IPPROTO_IP, IP_RECVTOS}, 1},
    {{IPPROTO_IP, IP_RECVTTL}, 1},      {{IPPROTO_IP, IP_PKTINFO}, 1},     {{IPPROTO_IP, IP_MTU_DISCOVER}, IP_PMTUDISC_DO},
    {{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT}, 1}, {{IPPROTO_IP, IP_FREEBIND}, 1},
    {{IPPROTO_TCP, TCP_NODELAY}, 1},    {{IPPROTO_TCP, TCP_KEEPIDLE}, 11}, {{IPPROTO_TCP, TCP_KEEPINTVL}, 12},
    {{IPPROTO_TCP, TCP_KEEPCNT}, 3},    {{IPPROTO_TCP, TCP_SYNCNT}, 4},    {{IPPROTO_TCP, TCP_USER_TIMEOUT}, 9000},
    {{IPPROTO_TCP, TCP_NOTSENT_LOWAT}, 12345}, {{IPPROTO_TCP, TCP_LINGER2}, 13}, {{IPPROTO_TCP, TCP_CORK}, 1},
};

}  // namespace

TEST_CASE("option sweep: what is set is read back, in every state", "[sockopt][sweep]") {
  const Sockets s(AF_INET);
  for (const int fd : {int(s.fresh), int(s.bound), int(s.listening), int(s.pair.client), int(s.pair.server)}) {
    for (const Setting& each : kSettings) {
      CAPTURE(each.name, fd);
      const int before = option(fd, each.name.level, each.name.number);
      set_option(fd, each.name.level, each.name.number, each.value);
      REQUIRE(option(fd, each.name.level, each.name.number) == each.value);
      if (each.name == Name{SOL_SOCKET, 44}) continue;  // SO_LOCK_FILTER stays
      set_option(fd, each.name.level, each.name.number, before);
      REQUIRE(option(fd, each.name.level, each.name.number) == before);
    }
  }
}

TEST_CASE("option sweep: accept passes on what the listener has", "[sockopt][sweep]") {
  const Fd l = listener();
  for (const Setting& each : kSettings) set_option(l, each.name.level, each.name.number, each.value);
  const Pair pair = connected_pair_via(l);
  for (const Setting& each : kSettings) {
    CAPTURE(each.name);
    const bool stays = each.name == Name{SOL_SOCKET, SO_PRIORITY};
    REQUIRE(option(pair.server, each.name.level, each.name.number) == (stays ? 0 : each.value));
  }
  const Pair other = connected_pair();
  REQUIRE(option(other.server, SOL_SOCKET, SO_PRIORITY) == 0);
  REQUIRE(option(other.client, IPPROTO_IP, IP_RECVTTL) == 0);
}

TEST_CASE("option sweep: a socket's cookie is its own", "[sockopt][sweep]") {
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 3; ++i) {
    const Pair pair = connected_pair();
    for (const int fd : {int(pair.client), int(pair.server)}) {
      const auto cookie = option<std::uint64_t>(fd, SOL_SOCKET, 57);
      REQUIRE(cookie == option<std::uint64_t>(fd, SOL_SOCKET, 57));
      for (const std::uint64_t other : seen) REQUIRE(cookie != other);
      seen.push_back(cookie);
    }
  }
}

TEST_CASE("option sweep: SO_PEERNAME is the peer's address", "[sockopt][sweep]") {
  const Pair pair = connected_pair();
  sockaddr_in name{};
  socklen_t size = sizeof name;
  REQUIRE(error_of(::getsockopt(pair.client, SOL_SOCKET, SO_PEERNAME, &name, &size)) == 0);
  REQUIRE(ntohs(name.sin_port) == peer_of(pair.client).port());
  const Fd fresh = stream_socket();
  REQUIRE(error_of(::getsockopt(fresh, SOL_SOCKET, SO_PEERNAME, &name, &size)) == ENOTCONN);
}

TEST_CASE("option sweep: TCP_NOTSENT_LOWAT is 0 at first", "[sockopt][sweep]") {
  const Pair pair = connected_pair();
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 0);
}

TEST_CASE("option sweep: odd values are bounded as Linux bounds them", "[sockopt][sweep]") {
  const Pair pair = connected_pair();
  const Fd fresh = stream_socket();
  for (const int fd : {int(fresh), int(pair.client), int(pair.server)}) {
    CAPTURE(fd);
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20);
    set_option(fd, SOL_SOCKET, SO_RCVLOWAT, -1);
    REQUIRE(option(fd, SOL_SOCKET, SO_RCVLOWAT) == option(fd, SOL_SOCKET, SO_RCVBUF) / 2);
    for (const int buffer : {SO_SNDBUF, SO_RCVBUF}) {  // negative is huge
      set_option(fd, SOL_SOCKET, buffer, INT_MAX);
      const int most = option(fd, SOL_SOCKET, buffer);
      set_option(fd, SOL_SOCKET, buffer, 10000);
      set_option(fd, SOL_SOCKET, buffer, -1);
      REQUIRE(option(fd, SOL_SOCKET, buffer) == most);
    }
    set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 70000);
    REQUIRE(option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT) == 127 + 248 * 120);  // 255 repetitions
    set_option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, -1);
    REQUIRE(option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP) == 1152);
  }
}

TEST_CASE("option sweep: a window is opened for a large SO_RCVLOWAT", "[sockopt][sweep]") {
  const Pair pair = connected_pair();
  constexpr int kMuch = 400'000;
  set_option(pair.server, SOL_SOCKET, SO_RCVLOWAT, kMuch);
  set_option(pair.client, SOL_SOCKET, SO_SNDBUF, 1 << 20);
  REQUIRE(send_all(pair.client, pattern(kMuch)));
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(queued(pair.server) == kMuch);
}

TEST_CASE("option sweep: IPV6_V6ONLY can be read and not set once there is a port", "[sockopt][sweep]") {
  const Fd fresh = stream_socket(AF_INET6);
  for (const int value : {1, 0}) {
    set_option(fresh, IPPROTO_IPV6, IPV6_V6ONLY, value);
    REQUIRE(option(fresh, IPPROTO_IPV6, IPV6_V6ONLY) == value);
  }
  const Pair pair = connected_pair(AF_INET6);
  const Fd specific = listener(8, AF_INET6);
  REQUIRE(option(specific, IPPROTO_IPV6, IPV6_V6ONLY) == 1);  // of such an address nothing else is possible
  REQUIRE(option(pair.server, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  REQUIRE(option(pair.client, IPPROTO_IPV6, IPV6_V6ONLY) == 0);
  const int zero = 0;
  for (const int fd : {int(specific), int(pair.client), int(pair.server)}) {
    CAPTURE(fd);
    REQUIRE(error_of(::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero)) == EINVAL);
  }
  for (const int only : {0, 1}) {
    Fd wild = stream_socket(AF_INET6);
    set_option(wild, IPPROTO_IPV6, IPV6_V6ONLY, only);
    const Address any = wildcard_address(AF_INET6);
    REQUIRE(error_of(::bind(wild, any.get(), any.size)) == 0);
    REQUIRE(error_of(::listen(wild, 1)) == 0);
    REQUIRE(option(wild, IPPROTO_IPV6, IPV6_V6ONLY) == only);
  }
}

TEST_CASE("option sweep: what says something about a connection says it", "[sockopt][sweep]") {
  const Pair six = connected_pair(AF_INET6);
  for (const int fd : {int(six.client), int(six.server)}) {
    constexpr int kPathMtu = 61;  // IPV6_PATHMTU
    struct {
      sockaddr_in6 address;
      std::uint32_t mtu;
    } path{};
    const int mtu = option(fd, IPPROTO_IPV6, IPV6_MTU);
    REQUIRE(mtu >= 1280);
    path = option<decltype(path)>(fd, IPPROTO_IPV6, kPathMtu);
    REQUIRE(path.mtu == static_cast<std::uint32_t>(mtu));
  }
  const Fd fresh = stream_socket(AF_INET6);
  int value = 0;
  socklen_t size = sizeof value;
  REQUIRE(error_of(::getsockopt(fresh, IPPROTO_IPV6, IPV6_MTU, &value, &size)) == ENOTCONN);

  const Pair pair = connected_pair();
  const Fd bound = bound_socket();
  for (const int fd : {int(pair.client), int(pair.server), int(bound)}) {
    CAPTURE(fd);
    constexpr int kProtocol = 52;  // IP_PROTOCOL, which is the port
    REQUIRE(option(fd, IPPROTO_IP, kProtocol) == local_of(fd).port());
    char messages[64];
    size = sizeof messages;
    REQUIRE(error_of(::getsockopt(fd, IPPROTO_IP, IP_PKTOPTIONS, messages, &size)) == 0);
    REQUIRE(size == 0);
    REQUIRE(error_of(::setsockopt(fd, IPPROTO_IP, IP_PKTOPTIONS, messages, sizeof messages)) == ENOPROTOOPT);
  }
  constexpr int kReceiveFragmentSize = 77, kRouterAlertIsolate = 30;  // of IPv6
  for (const int name : {kReceiveFragmentSize, kRouterAlertIsolate}) {
    set_option(six.client, IPPROTO_IPV6, name, 1);
    REQUIRE(option(six.client, IPPROTO_IPV6, name) == 1);
  }
}

namespace {

// One byte with a control message that says when it shall leave.
Errno send_at_time(int fd) {
  const ControlMessage<std::uint64_t> message(SOL_SOCKET, SO_TXTIME, 0);
  return error_of(::sendmsg(fd, &message.m, 0));
}

}  // namespace

TEST_CASE("option sweep: a stream takes SO_TXTIME and its message, and heeds neither", "[sockopt][sweep]") {
  const Pair pair = connected_pair();
  REQUIRE(send_at_time(pair.client) == EINVAL);
  struct Clock {
    int id;
    std::uint32_t flags;
  };
  set_option(pair.client, SOL_SOCKET, SO_TXTIME, Clock{CLOCK_MONOTONIC, 0});
  REQUIRE(option<Clock>(pair.client, SOL_SOCKET, SO_TXTIME).id == CLOCK_MONOTONIC);
  REQUIRE(send_at_time(pair.client) == 0);
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

// Of an option that can be read, another value can be set, or neither is possible: TCP_TX_DELAY and its like.
TEST_CASE("option sweep: an option that is not there can neither be read nor set", "[sockopt][sweep]") {
  const Pair pair = connected_pair();
  for (const int name : {16, 27, 37}) {  // TCP_THIN_LINEAR_TIMEOUTS, TCP_SAVE_SYN, TCP_TX_DELAY
    CAPTURE(name);
    int value = 1;
    socklen_t size = sizeof value;
    const bool settable = ::setsockopt(pair.client, IPPROTO_TCP, name, &value, sizeof value) == 0;
    REQUIRE((::getsockopt(pair.client, IPPROTO_TCP, name, &value, &size) == 0) == settable);
    REQUIRE(value == 1);
  }
}
