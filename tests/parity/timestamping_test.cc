// SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING: times of what came beside the data, of what was sent in the error queue.
#include <time.h>
// After <time.h>, which it needs.
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>

#include <array>
#include <cstring>
#include <optional>
#include <thread>

#include "tests/parity/epoll.hh"
#include "tests/parity/net.hh"

using namespace parity;

namespace {

constexpr int kTimestampNew = 63, kTimestampNsNew = 64, kTimestampingNew = 65;
constexpr int kOptIdTcp = 1 << 16;

double seconds_of(const timespec& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9; }
double day() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return seconds_of(t);
}

struct Message {
  ssize_t bytes = 0;
  int flags = 0;
  std::vector<std::pair<int, int>> types;  // level and type of each control message
  std::optional<double> simple, software;  // SO_TIMESTAMP or SO_TIMESTAMPNS; SO_TIMESTAMPING
  std::optional<sock_extended_err> error;
  std::string data;
};

void take_control(Message& out, const cmsghdr* c) {
  out.types.emplace_back(c->cmsg_level, c->cmsg_type);
  if (c->cmsg_level == SOL_SOCKET && (c->cmsg_type == SO_TIMESTAMP || c->cmsg_type == kTimestampNew)) {
    timeval t{};
    REQUIRE(c->cmsg_len == CMSG_LEN(sizeof t));
    std::memcpy(&t, CMSG_DATA(c), sizeof t);
    out.simple = static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  } else if (c->cmsg_level == SOL_SOCKET && (c->cmsg_type == SO_TIMESTAMPNS || c->cmsg_type == kTimestampNsNew)) {
    timespec t{};
    REQUIRE(c->cmsg_len == CMSG_LEN(sizeof t));
    std::memcpy(&t, CMSG_DATA(c), sizeof t);
    out.simple = seconds_of(t);
  } else if (c->cmsg_level == SOL_SOCKET && (c->cmsg_type == SO_TIMESTAMPING || c->cmsg_type == kTimestampingNew)) {
    scm_timestamping t{};
    REQUIRE(c->cmsg_len == CMSG_LEN(sizeof t));
    std::memcpy(&t, CMSG_DATA(c), sizeof t);
    out.software = seconds_of(t.ts[0]);
    REQUIRE(seconds_of(t.ts[1]) == 0);
    REQUIRE(seconds_of(t.ts[2]) == 0);  // hardware's
  } else if ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) || (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR)) {
    sock_extended_err e{};
    std::memcpy(&e, CMSG_DATA(c), sizeof e);
    out.error = e;
  }
}

// recvmsg; nothing if there is none.
std::optional<Message> receive(int fd, int flags, std::size_t room = 4096) {
  alignas(cmsghdr) std::array<char, 512> control{};
  std::string data(room, '\0');
  iovec v{data.data(), data.size()};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control.data();
  m.msg_controllen = control.size();
  Message out;
  out.bytes = ::recvmsg(fd, &m, flags);
  if (out.bytes < 0) {
    REQUIRE(errno == EAGAIN);
    return std::nullopt;
  }
  REQUIRE((m.msg_flags & MSG_CTRUNC) == 0);
  out.flags = m.msg_flags;
  out.data = data.substr(0, static_cast<std::size_t>(out.bytes));
  for (const cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, const_cast<cmsghdr*>(c))) take_control(out, c);
  return out;
}

// The kernel begins to look at the clock some time after the first socket has asked for it.
Message receive_with_time(const Pair& pair, int fd, int other) {
  const Stopwatch watch;
  for (;;) {
    REQUIRE(::send(other, "abc", 3, 0) == 3);
    REQUIRE(becomes(fd, POLLIN));
    const auto m = receive(fd, 0);
    REQUIRE(m.has_value());
    REQUIRE(m->data == "abc");
    if (m->simple || m->software) return *m;
    REQUIRE(watch.elapsed() < milliseconds(3000));
    std::this_thread::sleep_for(milliseconds(10));
  }
  (void)pair;
}

Message next_report(int fd) {
  REQUIRE(becomes(fd, POLLERR));
  const auto m = receive(fd, MSG_ERRQUEUE);
  REQUIRE(m.has_value());
  REQUIRE((m->flags & MSG_ERRQUEUE) != 0);
  REQUIRE(m->error.has_value());
  REQUIRE(m->error->ee_errno == ENOMSG);
  REQUIRE(m->error->ee_origin == SO_EE_ORIGIN_TIMESTAMPING);
  return *m;
}

constexpr int kAll = SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK;
constexpr int kBare = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY;
constexpr int kNumbered = kBare | SOF_TIMESTAMPING_OPT_ID;

// The three reports of the write that ends with byte `last`.
void expect_reports(int fd, std::uint32_t last, double before) {
  double earlier = before - 0.001;
  for (const std::uint32_t kind : {SCM_TSTAMP_SCHED, SCM_TSTAMP_SND, SCM_TSTAMP_ACK}) {
    const Message m = next_report(fd);
    REQUIRE(m.error->ee_info == kind);
    REQUIRE(m.error->ee_data == last);
    REQUIRE(m.software.has_value());
    REQUIRE(*m.software >= earlier - 50e-6);  // the clocks of two readings
    REQUIRE(*m.software <= day() + 0.001);
    REQUIRE(m.bytes == 0);
    earlier = *m.software;
  }
}

// sendmsg with a control message that has `flags`.
ssize_t send_asking(int fd, const std::string& data, std::uint32_t flags, int type = SO_TIMESTAMPING) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof flags)> control{};
  iovec v{const_cast<char*>(data.data()), data.size()};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control.data();
  m.msg_controllen = control.size();
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = type;
  c->cmsg_len = CMSG_LEN(sizeof flags);
  std::memcpy(CMSG_DATA(c), &flags, sizeof flags);
  return ::sendmsg(fd, &m, 0);
}

}  // namespace

TEST_CASE("timestamping: SO_TIMESTAMP and SO_TIMESTAMPNS tell when data came", "[timestamping]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const int name = GENERATE(SO_TIMESTAMP, SO_TIMESTAMPNS, kTimestampNew, kTimestampNsNew);
  const Pair pair = connected_pair(family);
  set_option(pair.server, SOL_SOCKET, name, 1);
  const double before = day();
  const Message m = receive_with_time(pair, pair.server, pair.client);
  REQUIRE(m.types == std::vector<std::pair<int, int>>{{SOL_SOCKET, name}});
  REQUIRE(*m.simple >= before - 0.001);
  REQUIRE(*m.simple <= day() + 0.001);
  // The other end has not asked.
  REQUIRE(::send(pair.server, "back", 4, 0) == 4);
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(receive(pair.client, 0)->types.empty());
}

TEST_CASE("timestamping: the time is that of the arrival, not of the read", "[timestamping]") {
  const Pair pair = connected_pair();
  set_option(pair.server, SOL_SOCKET, SO_TIMESTAMPNS, 1);
  (void)receive_with_time(pair, pair.server, pair.client);
  REQUIRE(::send(pair.client, "first", 5, 0) == 5);
  REQUIRE(becomes(pair.server, POLLIN));
  const double arrived = day();
  std::this_thread::sleep_for(milliseconds(60));
  const auto peeked = receive(pair.server, MSG_PEEK);
  for (int i = 0; i < 100; ++i) REQUIRE(receive(pair.server, MSG_PEEK)->simple == peeked->simple);
  const auto m = receive(pair.server, 0);
  REQUIRE(m->simple.has_value());
  REQUIRE(*m->simple <= arrived + 0.02);
  REQUIRE(peeked->simple == m->simple);
  REQUIRE(!receive(pair.server, MSG_DONTWAIT).has_value());
}

TEST_CASE("timestamping: SO_TIMESTAMPING tells when data came, beside TCP_INQ", "[timestamping]") {
  const int name = GENERATE(SO_TIMESTAMPING, kTimestampingNew);
  const Pair pair = connected_pair();
  set_option(pair.server, SOL_SOCKET, name, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE);
  set_option(pair.server, IPPROTO_TCP, TCP_INQ, 1);
  const double before = day();
  const Message m = receive_with_time(pair, pair.server, pair.client);
  REQUIRE(m.types == std::vector<std::pair<int, int>>{{SOL_SOCKET, name}, {IPPROTO_TCP, TCP_INQ}});
  REQUIRE(*m.software >= before - 0.001);
  REQUIRE(*m.software <= day() + 0.001);
}

TEST_CASE("timestamping: both kinds together, and the end of the stream has none", "[timestamping]") {
  Pair pair = connected_pair();
  set_option(pair.server, SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE);
  set_option(pair.server, SOL_SOCKET, SO_TIMESTAMP, 1);
  const Message m = receive_with_time(pair, pair.server, pair.client);
  REQUIRE(m.types == std::vector<std::pair<int, int>>{{SOL_SOCKET, SO_TIMESTAMP}, {SOL_SOCKET, SO_TIMESTAMPING}});
  REQUIRE(std::abs(*m.simple - *m.software) < 0.00001);
  pair.client.reset();
  REQUIRE(becomes(pair.server, POLLRDHUP));
  const auto end = receive(pair.server, 0);
  REQUIRE(end->bytes == 0);
  REQUIRE(end->types.empty());
}

TEST_CASE("timestamping: what is set is read back, by the same name", "[timestamping]") {
  const Fd s = stream_socket();
  const std::array<int, 4> names{SO_TIMESTAMP, SO_TIMESTAMPNS, kTimestampNew, kTimestampNsNew};
  const auto all = [&] {
    std::vector<int> on;
    for (const int name : names)
      if (option(s, SOL_SOCKET, name) != 0) on.push_back(name);
    return on;
  };
  REQUIRE(all().empty());
  for (const int name : names) {
    set_option(s, SOL_SOCKET, name, 1);
    CAPTURE(name);
    const bool new_and_nanoseconds = name == kTimestampNsNew;
    if (new_and_nanoseconds) {
      REQUIRE(all() == std::vector<int>{kTimestampNew, kTimestampNsNew});
    } else {
      REQUIRE(all() == std::vector<int>{name});
    }
  }
  set_option(s, SOL_SOCKET, SO_TIMESTAMP, 0);
  REQUIRE(all().empty());
  const int flags = kBare | kAll | SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_RAW_HARDWARE;
  set_option(s, SOL_SOCKET, SO_TIMESTAMPING, flags);
  const auto got = option<std::array<int, 2>>(s, SOL_SOCKET, SO_TIMESTAMPING);
  REQUIRE(got[0] == flags);
  REQUIRE(got[1] == 0);
}

TEST_CASE("timestamping: what can't be", "[timestamping]") {
  const Pair pair = connected_pair();
  const Fd fresh = stream_socket();
  const Fd l = listener();
  const auto refused = [](int fd, int flags) { return error_of(::setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags)); };
  REQUIRE(refused(pair.client, 1 << 30) == EINVAL);
  REQUIRE(refused(pair.client, kOptIdTcp) == EINVAL);
  REQUIRE(refused(fresh, SOF_TIMESTAMPING_OPT_ID) == EINVAL);
  REQUIRE(refused(l, SOF_TIMESTAMPING_OPT_ID) == EINVAL);
  REQUIRE(refused(pair.client, SOF_TIMESTAMPING_BIND_PHC) == EOPNOTSUPP);
  const char one = 1;
  REQUIRE(error_of(::setsockopt(pair.client, SOL_SOCKET, SO_TIMESTAMPING, &one, 1)) == EINVAL);
  REQUIRE(error_of(send_asking(pair.client, "x", SOF_TIMESTAMPING_OPT_ID)) == EINVAL);  // no time of sending
  REQUIRE(error_of(send_asking(pair.client, "x", 0, 250)) == EINVAL);
  REQUIRE(option(pair.client, SOL_SOCKET, SO_TIMESTAMPING) == 0);
}

TEST_CASE("timestamping: each write is queued, sent and acknowledged, by the number of its last byte", "[timestamping]") {
  const int family = GENERATE(AF_INET, AF_INET6);
  const Pair pair = connected_pair(family);
  set_option(pair.client, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, kNumbered | kAll);
  std::uint32_t sent = 0;
  for (const std::size_t size : {10U, 5000U, 1U}) {
    const double before = day();
    REQUIRE(send_all(pair.client, pattern(size)));
    REQUIRE(receive_exactly(pair.server, size) == pattern(size));
    sent += static_cast<std::uint32_t>(size);
    expect_reports(pair.client, sent - 1, before);
  }
  REQUIRE(!receive(pair.client, MSG_ERRQUEUE).has_value());
  REQUIRE(poll_events(pair.client, POLLERR) == 0);
  REQUIRE(option(pair.client, SOL_SOCKET, SO_ERROR) == 0);
}

TEST_CASE("timestamping: numbers begin where the option was set", "[timestamping]") {
  const int more = GENERATE(0, kOptIdTcp);
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, pattern(100)));
  REQUIRE(receive_exactly(pair.server, 100) == pattern(100));
  while (queued(pair.client, SIOCOUTQ) != 0) std::this_thread::sleep_for(milliseconds(1));
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, kNumbered | SOF_TIMESTAMPING_TX_ACK | more);
  REQUIRE(send_all(pair.client, "0123456789"));
  REQUIRE(receive_exactly(pair.server, 10) == "0123456789");
  const Message m = next_report(pair.client);
  REQUIRE(m.error->ee_info == SCM_TSTAMP_ACK);
  REQUIRE(m.error->ee_data == 9);
  // Off, and on again: from here.
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, 0);
  REQUIRE(send_all(pair.client, "unseen"));
  REQUIRE(receive_exactly(pair.server, 6) == "unseen");
  while (queued(pair.client, SIOCOUTQ) != 0) std::this_thread::sleep_for(milliseconds(1));
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, kNumbered | SOF_TIMESTAMPING_TX_ACK | more);
  REQUIRE(send_all(pair.client, "ab"));
  REQUIRE(receive_exactly(pair.server, 2) == "ab");
  REQUIRE(next_report(pair.client).error->ee_data == 1);
}

TEST_CASE("timestamping: a single send asks by a control message", "[timestamping]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, kNumbered);
  REQUIRE(send_all(pair.client, "not this"));
  REQUIRE(send_asking(pair.client, "but this", SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK) == 8);
  REQUIRE(send_all(pair.client, "nor this"));
  REQUIRE(receive_exactly(pair.server, 24) == "not thisbut thisnor this");
  const Message sent = next_report(pair.client);
  REQUIRE(sent.error->ee_info == SCM_TSTAMP_SND);
  REQUIRE(sent.error->ee_data == 15);
  const Message acked = next_report(pair.client);
  REQUIRE(acked.error->ee_info == SCM_TSTAMP_ACK);
  REQUIRE(acked.error->ee_data == 15);
  REQUIRE(!receive(pair.client, MSG_ERRQUEUE).has_value());
  // And one asks for less than the socket.
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, kNumbered | kAll);
  REQUIRE(send_asking(pair.client, "x", 0) == 1);
  REQUIRE(receive_exactly(pair.server, 1) == "x");
  while (queued(pair.client, SIOCOUTQ) != 0) std::this_thread::sleep_for(milliseconds(1));
  REQUIRE(!receive(pair.client, MSG_ERRQUEUE).has_value());
}

TEST_CASE("timestamping: without OPT_TSONLY the reports have what was sent, without OPT_ID no number", "[timestamping]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE | kAll);
  const std::string data = pattern(600);
  REQUIRE(send_all(pair.client, data));
  REQUIRE(receive_exactly(pair.server, data.size()) == data);
  for (const std::uint32_t kind : {SCM_TSTAMP_SCHED, SCM_TSTAMP_SND}) {
    const Message m = next_report(pair.client);
    REQUIRE(m.error->ee_info == kind);
    REQUIRE(m.error->ee_data == 0);
    REQUIRE(m.data.size() > data.size());
    REQUIRE(m.data.ends_with(data));
  }
  REQUIRE(becomes(pair.client, POLLERR));
  const auto acked = receive(pair.client, MSG_ERRQUEUE, 100);
  REQUIRE(acked->data == data.substr(0, 100));
  REQUIRE((acked->flags & MSG_TRUNC) != 0);
}

TEST_CASE("timestamping: an accepted connection has what its listener has", "[timestamping]") {
  const Fd l = listener();
  set_option(l, SOL_SOCKET, SO_TIMESTAMPING, kBare | kAll | SOF_TIMESTAMPING_RX_SOFTWARE);
  set_option(l, SOL_SOCKET, SO_TIMESTAMP, 1);
  const Pair pair = connected_pair_via(l);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_TIMESTAMPING) == (kBare | kAll | SOF_TIMESTAMPING_RX_SOFTWARE));
  const Message m = receive_with_time(pair, pair.server, pair.client);
  REQUIRE(m.simple.has_value());
  REQUIRE(m.software.has_value());
  const double before = day();
  REQUIRE(send_all(pair.server, "answer"));
  REQUIRE(receive_exactly(pair.client, 6) == "answer");
  expect_reports(pair.server, 0, before);  // without numbers
}

TEST_CASE("timestamping: reports wake who waits for errors, with epoll and in a blocking poll", "[timestamping]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_TIMESTAMPING, kNumbered | SOF_TIMESTAMPING_TX_ACK);
  const Fd set(::epoll_create1(0));
  epoll_event interest{};
  interest.events = EPOLLET;
  REQUIRE(::epoll_ctl(set, EPOLL_CTL_ADD, pair.client, &interest) == 0);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
  epoll_event got{};
  REQUIRE(::epoll_wait(set, &got, 1, 5000) == 1);
  REQUIRE((got.events & EPOLLERR) != 0);
  REQUIRE(next_report(pair.client).error->ee_data == 0);
  // A read does not end for it.
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{0, 60000});
  REQUIRE(send_all(pair.client, "y"));
  REQUIRE(receive_exactly(pair.server, 1) == "y");
  REQUIRE(becomes(pair.client, POLLERR));
  char c = 0;
  REQUIRE(error_of(::recv(pair.client, &c, 1, 0)) == EAGAIN);
}
