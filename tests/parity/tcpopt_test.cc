// getsockopt() and setsockopt(): the options of TCP and IP.
#include <netinet/ip.h>

#include <cstring>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

int tcp_state(int fd) { return option<tcp_info>(fd, IPPROTO_TCP, TCP_INFO).tcpi_state; }

bool reaches(int fd, int state) {
  for (int i = 0; i < 1000; ++i) {
    if (tcp_state(fd) == state) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return false;
}

Errno try_tcp(int fd, int name, int value) {
  return error_of(::setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value));
}

}  // namespace

TEST_CASE("tcp option: TCP_NODELAY and TCP_CORK are off at first, and go on and off", "[tcpopt]") {
  const Pair pair = connected_pair();
  for (const int name : {TCP_NODELAY, TCP_CORK}) {
    REQUIRE(option(pair.client, IPPROTO_TCP, name) == 0);
    set_option(pair.client, IPPROTO_TCP, name, 1);
    REQUIRE(option(pair.client, IPPROTO_TCP, name) == 1);
    set_option(pair.client, IPPROTO_TCP, name, 0);
    REQUIRE(option(pair.client, IPPROTO_TCP, name) == 0);
  }
}

TEST_CASE("tcp option: keep-alive times have Linux's defaults and are kept", "[tcpopt]") {
  const Fd fd = stream_socket();
  REQUIRE(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 7200);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 75);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 9);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 10);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 5);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_KEEPCNT) == 3);
}

TEST_CASE("tcp option: keep-alive times out of range are EINVAL", "[tcpopt]") {
  const Fd fd = stream_socket();
  for (const int name : {TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT}) {
    CAPTURE(name);
    REQUIRE(try_tcp(fd, name, 0) == EINVAL);
    REQUIRE(try_tcp(fd, name, -1) == EINVAL);
    REQUIRE(try_tcp(fd, name, 40000) == EINVAL);
  }
}

TEST_CASE("tcp option: keep-alive finds a living peer alive", "[tcpopt]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set_option(pair.client, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set_option(pair.client, IPPROTO_TCP, TCP_KEEPCNT, 1);
  set_option(pair.client, SOL_SOCKET, SO_KEEPALIVE, 1);
  REQUIRE_FALSE(becomes(pair.client, POLLIN | POLLRDHUP, milliseconds(2300)));
  REQUIRE(send_all(pair.client, "alive"));
  REQUIRE(receive_exactly(pair.server, 5) == "alive");
}

TEST_CASE("tcp option: TCP_SYNCNT, TCP_LINGER2 and TCP_USER_TIMEOUT are kept", "[tcpopt]") {
  const Fd fd = stream_socket();
  set_option(fd, IPPROTO_TCP, TCP_SYNCNT, 4);
  set_option(fd, IPPROTO_TCP, TCP_LINGER2, 7);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_SYNCNT) == 4);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_LINGER2) == 7);
  REQUIRE(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 12345);
}

TEST_CASE("tcp option: TCP_SYNCNT and TCP_USER_TIMEOUT out of range are EINVAL", "[tcpopt]") {
  const Fd fd = stream_socket();
  REQUIRE(try_tcp(fd, TCP_SYNCNT, 0) == EINVAL);
  REQUIRE(try_tcp(fd, TCP_SYNCNT, 200) == EINVAL);
  REQUIRE(try_tcp(fd, TCP_USER_TIMEOUT, -1) == EINVAL);
}

TEST_CASE("tcp option: TCP_DEFER_ACCEPT is 0 at first and at least what was asked afterwards", "[tcpopt]") {
  const Fd l = listener();
  REQUIRE(option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT) == 0);
  set_option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
  REQUIRE(option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT) >= 5);
  set_option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
  REQUIRE(option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT) == 0);
}

TEST_CASE("tcp option: TCP_QUICKACK and TCP_NOTSENT_LOWAT can be set", "[tcpopt]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_QUICKACK, 1);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_QUICKACK) == 1);
  set_option(pair.client, IPPROTO_TCP, TCP_QUICKACK, 0);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 0);
  set_option(pair.client, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 16384);
  set_option(pair.client, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 0);
  REQUIRE(becomes(pair.client, POLLOUT));
}

TEST_CASE("tcp option: TCP_MAXSEG shows a segment size and takes one before the connect", "[tcpopt]") {
  const Pair pair = connected_pair();
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_MAXSEG) >= 536);
  const Fd l = listener();
  const Fd client = stream_socket();
  set_option(client, IPPROTO_TCP, TCP_MAXSEG, 700);
  const Address to = local_of(l);
  REQUIRE(::connect(client, to.get(), to.size) == 0);
  const Fd server = accept_from(l);
  REQUIRE(option(client, IPPROTO_TCP, TCP_MAXSEG) <= 700);
  REQUIRE(option(server, IPPROTO_TCP, TCP_MAXSEG) <= 700);
  const std::string data = pattern(20000);
  REQUIRE(send_all(client, data));
  REQUIRE((receive_exactly(server, data.size()) == data));
}

TEST_CASE("tcp option: TCP_MAXSEG out of range is EINVAL", "[tcpopt]") {
  const Fd fd = stream_socket();
  REQUIRE(try_tcp(fd, TCP_MAXSEG, 10) == EINVAL);
  REQUIRE(try_tcp(fd, TCP_MAXSEG, 100000) == EINVAL);
}

TEST_CASE("tcp option: TCP_CONGESTION names an algorithm, and an unknown one is ENOENT", "[tcpopt]") {
  const Fd fd = stream_socket();
  char name[32] = "";
  socklen_t size = sizeof name;
  REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size)) == 0);
  REQUIRE(std::strlen(name) >= 3);
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonsense", 8)) == ENOENT);
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) == 0);
  size = sizeof name;
  REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size)) == 0);
  REQUIRE(std::string(name) == "reno");
}

TEST_CASE("tcp option: TCP_INFO shows a listener, an open connection and a fresh socket", "[tcpopt]") {
  const Fd fresh = stream_socket();
  const Fd l = listener();
  const Pair pair = connected_pair_via(l);
  REQUIRE(tcp_state(fresh) == TCP_CLOSE);
  REQUIRE(tcp_state(l) == TCP_LISTEN);
  REQUIRE(tcp_state(pair.client) == TCP_ESTABLISHED);
  REQUIRE(tcp_state(pair.server) == TCP_ESTABLISHED);
}

TEST_CASE("tcp option: TCP_INFO follows an orderly close through its states", "[tcpopt]") {
  const Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.server).empty());
  REQUIRE(reaches(pair.server, TCP_CLOSE_WAIT));
  REQUIRE(reaches(pair.client, TCP_FIN_WAIT2));
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.client).empty());
  REQUIRE(reaches(pair.server, TCP_CLOSE));
}

TEST_CASE("tcp option: TCP_INFO has plausible figures", "[tcpopt]") {
  const Pair pair = connected_pair();
  for (int i = 0; i < 20; ++i) {
    REQUIRE(send_all(pair.client, "ping"));
    REQUIRE(receive_exactly(pair.server, 4) == "ping");
    REQUIRE(send_all(pair.server, "pong"));
    REQUIRE(receive_exactly(pair.client, 4) == "pong");
  }
  const auto info = option<tcp_info>(pair.client, IPPROTO_TCP, TCP_INFO);
  REQUIRE(info.tcpi_snd_cwnd >= 2);
  REQUIRE(info.tcpi_snd_mss >= 536);
  REQUIRE(info.tcpi_rtt > 0);
  REQUIRE(info.tcpi_rtt < 1000000);
  REQUIRE(info.tcpi_rto >= 1000);
  REQUIRE(info.tcpi_total_retrans == 0);
}

TEST_CASE("tcp option: TCP_INFO tells what the receiver knows, and the MSS that is one's own", "[tcpopt]") {
  const Fd l = listener();
  const Fd client = stream_socket();
  set_option(client, IPPROTO_TCP, TCP_MAXSEG, 700);
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == 0);
  const Fd server = accept_from(l);
  for (int i = 0; i < 5; ++i) {
    REQUIRE(send_all(client, "ping"));
    REQUIRE(receive_exactly(server, 4) == "ping");
  }
  std::this_thread::sleep_for(milliseconds(20));
  const auto ours = option<tcp_info>(client, IPPROTO_TCP, TCP_INFO);
  const auto theirs = option<tcp_info>(server, IPPROTO_TCP, TCP_INFO);
  REQUIRE(ours.tcpi_advmss == 688);  // without the timestamps
  REQUIRE(theirs.tcpi_advmss > 1000);
  REQUIRE(theirs.tcpi_snd_mss <= 688);
  REQUIRE(theirs.tcpi_rcv_space > 0);
  REQUIRE(theirs.tcpi_ato >= 40000);
  REQUIRE(theirs.tcpi_ato <= 200000);
  REQUIRE(theirs.tcpi_last_data_recv >= 10);
  REQUIRE(theirs.tcpi_last_data_recv < 5000);
}

TEST_CASE("tcp option: TCP_INFO into fewer bytes gives those", "[tcpopt]") {
  const Pair pair = connected_pair();
  unsigned char bytes[8];
  std::memset(bytes, 0xee, sizeof bytes);
  socklen_t size = 4;
  REQUIRE(error_of(::getsockopt(pair.client, IPPROTO_TCP, TCP_INFO, bytes, &size)) == 0);
  REQUIRE(size == 4);
  REQUIRE(bytes[0] == TCP_ESTABLISHED);
  REQUIRE(bytes[4] == 0xee);
}

TEST_CASE("ip option: IP_TOS and IP_TTL are kept", "[tcpopt]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_IP, IP_TOS, 0x10);
  REQUIRE(option(pair.client, IPPROTO_IP, IP_TOS) == 0x10);
  set_option(pair.client, IPPROTO_IP, IP_TTL, 33);
  REQUIRE(option(pair.client, IPPROTO_IP, IP_TTL) == 33);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("ip option: IP_TTL out of range is EINVAL", "[tcpopt]") {
  const Fd fd = stream_socket();
  const int bad = 300;
  REQUIRE(error_of(::setsockopt(fd, IPPROTO_IP, IP_TTL, &bad, sizeof bad)) == EINVAL);
}
