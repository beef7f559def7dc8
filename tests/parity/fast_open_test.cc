// TCP Fast Open: sendto() and sendmsg() with MSG_FASTOPEN, TCP_FASTOPEN_CONNECT, and the options of a listener.
#include <array>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

constexpr int kKey = 33, kNoCookie = 34;  // TCP_FASTOPEN_KEY, TCP_FASTOPEN_NO_COOKIE

Fd fast_listener() {
  Fd fd = listener();
  set_option(fd, IPPROTO_TCP, TCP_FASTOPEN, 16);
  return fd;
}

ssize_t send_fast(int fd, std::string_view data, Address to, int flags = 0) {
  return ::sendto(fd, data.data(), data.size(), MSG_FASTOPEN | flags, to.get(), to.size);
}

// A connection after which the client has a cookie of the server.
void learn(int server) {
  const Fd client = stream_socket();
  REQUIRE(send_fast(client, "first", local_of(server)) == 5);
  const Fd accepted = accept_from(server);
  REQUIRE(receive_exactly(accepted, 5) == "first");
}

bool had_syn_data(int fd) {
  return (option<tcp_info>(fd, IPPROTO_TCP, TCP_INFO).tcpi_options & TCPI_OPT_SYN_DATA) != 0;
}

// Bits behind tcpi_delivery_rate_app_limited's, which the library's header does not have.
int failure_of(int fd) {
  std::array<std::uint8_t, sizeof(tcp_info)> info{};
  socklen_t size = info.size();
  REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, info.data(), &size)) == 0);
  return info[offsetof(tcp_info, tcpi_rto) - 1] >> 1 & 3;
}
constexpr int kNoFailure = 0, kNoCookieThere = 1, kNotAcknowledged = 2;

Errno try_option(int fd, int name, int value) { return error_of(::setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value)); }

}  // namespace

TEST_CASE("fast open: the options of sockets and listeners", "[fast_open]") {
  const Fd fd = stream_socket();
  REQUIRE(option(fd, IPPROTO_TCP, TCP_FASTOPEN) == 0);
  set_option(fd, IPPROTO_TCP, TCP_FASTOPEN, 5);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_FASTOPEN) == 5);
  REQUIRE(try_option(fd, TCP_FASTOPEN, -1) == EINVAL);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) == 0);
  REQUIRE(try_option(fd, TCP_FASTOPEN_CONNECT, 2) == EINVAL);
  set_option(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) == 1);
  REQUIRE(try_option(fd, kNoCookie, 2) == EINVAL);
  set_option(fd, IPPROTO_TCP, kNoCookie, 1);
  REQUIRE(option(fd, IPPROTO_TCP, kNoCookie) == 1);
  const Pair pair = connected_pair();
  REQUIRE(try_option(pair.client, TCP_FASTOPEN, 5) == EINVAL);
  REQUIRE(try_option(pair.client, TCP_FASTOPEN_CONNECT, 1) == EINVAL);
  REQUIRE(try_option(pair.client, kNoCookie, 1) == EINVAL);
}

TEST_CASE("fast open: the key of a listener is of 16 or 32 bytes, and is told", "[fast_open]") {
  const Fd fd = listener();
  std::array<std::uint8_t, 32> key{};
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i + 1);
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, kKey, key.data(), 5)) == EINVAL);
  for (const socklen_t n : {16U, 32U}) {
    REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, kKey, key.data(), n)) == 0);
    std::array<std::uint8_t, 32> got{};
    socklen_t size = sizeof got;
    REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, kKey, got.data(), &size)) == 0);
    REQUIRE(size == n);
    REQUIRE(std::equal(got.begin(), got.begin() + n, key.begin()));
  }
}

TEST_CASE("fast open: sendto connects and sends, and once there is a cookie the SYN has the data", "[fast_open]") {
  const Fd server = fast_listener();
  learn(server);
  const Fd client = stream_socket();
  REQUIRE(send_fast(client, "request", local_of(server)) == 7);
  const Fd accepted = accept_from(server);
  REQUIRE(receive_exactly(accepted, 7) == "request");
  REQUIRE(had_syn_data(accepted));
  REQUIRE(send_all(accepted, "reply"));
  REQUIRE(receive_exactly(client, 5) == "reply");
  REQUIRE(had_syn_data(client));
  REQUIRE(peer_of(client) == local_of(server));
}

TEST_CASE("fast open: what does not fit into the SYN follows", "[fast_open]") {
  const Fd server = fast_listener();
  learn(server);
  const Fd client = stream_socket();
  const std::string data = pattern(100'000);
  std::string got;
  std::thread reader([&] {
    const Fd accepted = accept_from(server);
    got = receive_exactly(accepted, data.size());
  });
  REQUIRE(send_fast(client, data, local_of(server)) == static_cast<ssize_t>(data.size()));
  reader.join();
  REQUIRE(got == data);
}

TEST_CASE("fast open: without blocking, what goes with the SYN is taken", "[fast_open]") {
  const Fd server = fast_listener();
  learn(server);
  const Fd client = stream_socket();
  set_nonblocking(client);
  REQUIRE(send_fast(client, "request", local_of(server)) == 7);
  const Fd accepted = accept_from(server);
  REQUIRE(receive_exactly(accepted, 7) == "request");
  REQUIRE(becomes(client, POLLOUT));
  REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("fast open: without a cookie a socket that does not block says EINPROGRESS and takes nothing", "[fast_open]") {
  const Fd server = listener();  // which gives none
  const Fd client = stream_socket();
  set_nonblocking(client);
  const ssize_t sent = send_fast(client, "request", local_of(server));
  // Another listener of this address may have given one: it is the address's, not the port's.
  if (sent == -1) REQUIRE(errno == EINPROGRESS);
  const Fd accepted = accept_from(server);
  REQUIRE(becomes(client, POLLOUT));
  if (sent == -1) REQUIRE(send_all(client, "request"));
  REQUIRE(receive_exactly(accepted, 7) == "request");
}

TEST_CASE("fast open: TCP_FASTOPEN_CONNECT lets the SYN wait for the first write", "[fast_open]") {
  const Fd server = fast_listener();
  learn(server);
  const Fd client = stream_socket();
  set_option(client, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
  Address to = local_of(server);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  REQUIRE_FALSE(becomes(server, POLLIN, milliseconds(50)));
  REQUIRE(poll_events(client, POLLIN | POLLOUT) == POLLOUT);
  set_nonblocking(client);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == EISCONN);
  set_nonblocking(client, false);
  REQUIRE(::write(client, "request", 7) == 7);
  const Fd accepted = accept_from(server);
  REQUIRE(receive_exactly(accepted, 7) == "request");
  REQUIRE(had_syn_data(accepted));
  REQUIRE(send_all(accepted, "reply"));
  REQUIRE(receive_exactly(client, 5) == "reply");
}

TEST_CASE("fast open: TCP_INFO tells why the data did not go with the SYN", "[fast_open]") {
  // No server gives cookies at this address.
  const Fd ordinary = listener(128, AF_INET6);
  const Fd client = stream_socket(AF_INET6);
  REQUIRE(send_fast(client, "request", local_of(ordinary)) == 7);
  REQUIRE(failure_of(client) == kNoCookieThere);
  REQUIRE(failure_of(accept_from(ordinary)) == kNoFailure);
  const Fd deferring = stream_socket(AF_INET6);
  set_option(deferring, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
  Address to = local_of(ordinary);
  REQUIRE(error_of(::connect(deferring, to.get(), to.size)) == 0);
  REQUIRE(failure_of(deferring) == kNoCookieThere);
  const Fd usual = stream_socket(AF_INET6);
  REQUIRE(error_of(::connect(usual, to.get(), to.size)) == 0);
  REQUIRE(failure_of(usual) == kNoFailure);
}

TEST_CASE("fast open: TCP_INFO tells that the server did not take the SYN's data", "[fast_open]") {
  const Fd server = fast_listener();
  learn(server);
  for (const bool changed : {false, true}) {
    // The cookie is worth nothing any more, and the answer has another.
    std::array<std::uint8_t, 16> key{};
    key[0] = 1;
    if (changed) REQUIRE(error_of(::setsockopt(server, IPPROTO_TCP, kKey, key.data(), key.size())) == 0);
    const Fd client = stream_socket();
    REQUIRE(send_fast(client, "request", local_of(server)) == 7);
    const Fd accepted = accept_from(server);
    REQUIRE(receive_exactly(accepted, 7) == "request");
    REQUIRE(failure_of(client) == (changed ? kNotAcknowledged : kNoFailure));
    REQUIRE(had_syn_data(client) != changed);
  }
}

TEST_CASE("fast open: errors", "[fast_open]") {
  const Fd server = fast_listener();
  const Pair pair = connected_pair_via(server);
  REQUIRE(error_of(send_fast(pair.client, "x", local_of(server))) == EISCONN);
  const Fd fd = stream_socket();
  REQUIRE(error_of(::send(fd, "x", 1, MSG_FASTOPEN)) == EINVAL);
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  REQUIRE(error_of(::sendto(fd, "x", 1, MSG_FASTOPEN, &none, sizeof none)) == EOPNOTSUPP);
  Address nobody;
  {
    const Fd gone = bound_socket();
    nobody = local_of(gone);
  }
  REQUIRE(error_of(send_fast(fd, "x", nobody)) == ECONNREFUSED);
}

TEST_CASE("send: MSG_EOR keeps what follows out of the record's last segment", "[send]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
  const auto segments = [&] { return info_of(pair.client).data_segs_out; };
  for (const bool record : {false, true}) {
    const auto before = segments();
    REQUIRE(::send(pair.client, "record", 6, record ? MSG_EOR : 0) == 6);
    REQUIRE(::send(pair.client, "later", 5, 0) == 5);
    set_option(pair.client, IPPROTO_TCP, TCP_CORK, 0);
    set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
    REQUIRE(receive_exactly(pair.server, 11) == "recordlater");
    REQUIRE(segments() - before == (record ? 2 : 1));
  }
}

TEST_CASE("tcp option: TCP_INFO counts segments and bytes", "[tcpopt]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "hello"));
  REQUIRE(receive_exactly(pair.server, 5) == "hello");
  REQUIRE(send_all(pair.server, "you"));
  REQUIRE(receive_exactly(pair.client, 3) == "you");
  const LongInfo info = info_of(pair.client);
  REQUIRE(info.data_segs_out == 1);
  REQUIRE(info.data_segs_in == 1);
  REQUIRE(info.segs_out >= 3);  // SYN, ACK, data
  REQUIRE(info.segs_in >= 2);   // SYN-ACK, data
  REQUIRE(info.bytes_sent == 5);
  REQUIRE(info.bytes_retrans == 0);
  REQUIRE(info.bytes_received == 3);
  REQUIRE(info.delivered == 2);  // and the SYN
}

TEST_CASE("tcp option: TCP_CONGESTION stays with a socket that only the kernel can serve", "[tcpopt]") {
  const Fd fd = stream_socket();
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) == 0);
  REQUIRE(error_of(::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2)) == 0);
  Address any = make_address("127.0.0.1", 0);
  REQUIRE(error_of(::bind(fd, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(fd, 1)) == 0);
  std::array<char, 16> name{};
  socklen_t n = name.size();
  REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), &n)) == 0);
  REQUIRE(std::string(name.data()) == "reno");
}
