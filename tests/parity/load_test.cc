// Many connections, many bytes, many messages.
#include <sys/epoll.h>

#include <algorithm>
#include <random>
#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

// FNV-1a over a stream.
class Checksum {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  [[nodiscard]] std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 14695981039346656037ULL;
};

constexpr std::size_t kBulk = 64U << 20;

std::uint64_t send_bulk(int fd, unsigned seed) {
  const std::string block = pattern((1 << 20) + 7, seed);
  Checksum sum;
  for (std::size_t left = kBulk; left > 0;) {
    const std::string_view part = std::string_view(block).substr(0, std::min(left, block.size()));
    if (!send_all(fd, part)) return 0;
    sum.add(part);
    left -= part.size();
  }
  ::shutdown(fd, SHUT_WR);
  return sum.value();
}

std::uint64_t receive_bulk(int fd, std::size_t& count) {
  Checksum sum;
  std::string buffer(256 * 1024, '\0');
  for (ssize_t n = 0; (n = ::recv(fd, buffer.data(), buffer.size(), 0)) > 0;) {
    sum.add(std::string_view(buffer).substr(0, static_cast<std::size_t>(n)));
    count += static_cast<std::size_t>(n);
  }
  return sum.value();
}

}  // namespace

TEST_CASE("load: 64 MB from client to server arrive unharmed", "[load]") {
  const Pair pair = connected_pair();
  std::uint64_t sent = 0;
  std::size_t count = 0;
  std::thread sender([&] { sent = send_bulk(pair.client, 31); });
  const std::uint64_t got = receive_bulk(pair.server, count);
  sender.join();
  REQUIRE(count == kBulk);
  REQUIRE(got == sent);
}

TEST_CASE("load: 64 MB each way at the same time arrive unharmed", "[load]") {
  const Pair pair = connected_pair();
  std::uint64_t sent[2] = {};
  std::uint64_t got[2] = {};
  std::size_t count[2] = {};
  std::thread a([&] { sent[0] = send_bulk(pair.client, 32); });
  std::thread b([&] { sent[1] = send_bulk(pair.server, 33); });
  std::thread c([&] { got[0] = receive_bulk(pair.server, count[0]); });
  got[1] = receive_bulk(pair.client, count[1]);
  a.join();
  b.join();
  c.join();
  REQUIRE(count[0] == kBulk);
  REQUIRE(count[1] == kBulk);
  REQUIRE(got[0] == sent[0]);
  REQUIRE(got[1] == sent[1]);
}

TEST_CASE("load: one thread moves 16 MB through both ends without blocking", "[load]") {
  const Pair pair = connected_pair();
  set_nonblocking(pair.client);
  set_nonblocking(pair.server);
  const std::string data = pattern(16 << 20, 34);
  std::string got;
  got.reserve(data.size());
  std::string buffer(100000, '\0');
  const Epoll set;
  set.add(pair.client, EPOLLOUT);
  set.add(pair.server, EPOLLIN);
  std::size_t sent = 0;
  while (got.size() < data.size()) {
    const auto events = set.wait(5000);
    REQUIRE_FALSE(events.empty());
    for (const auto& e : events) {
      if (e.data.fd == pair.client) {
        const ssize_t n = ::send(pair.client, data.data() + sent, data.size() - sent, 0);
        if (n > 0) sent += static_cast<std::size_t>(n);
        if (sent == data.size()) set.modify(pair.client, 0);
      } else {
        const ssize_t n = ::recv(pair.server, buffer.data(), buffer.size(), 0);
        if (n > 0) got.append(buffer, 0, static_cast<std::size_t>(n));
      }
    }
  }
  REQUIRE((got == data));
}

TEST_CASE("load: 10,000 messages back and forth", "[load]") {
  const Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(pair.server, IPPROTO_TCP, TCP_NODELAY, 1);
  bool good = true;
  for (int i = 0; i < 10000 && good; ++i) {
    const int question = i;
    int answer = 0;
    good = ::send(pair.client, &question, sizeof question, 0) == sizeof question &&
           ::recv(pair.server, &answer, sizeof answer, MSG_WAITALL) == sizeof answer && answer == i &&
           ::send(pair.server, &answer, sizeof answer, 0) == sizeof answer &&
           ::recv(pair.client, &answer, sizeof answer, MSG_WAITALL) == sizeof answer && answer == i;
  }
  REQUIRE(good);
}

TEST_CASE("load: 3,000 messages back and forth between two threads", "[load]") {
  const Pair pair = connected_pair();
  std::thread echo([&] {
    char b[32];
    while (::recv(pair.server, b, sizeof b, MSG_WAITALL) == sizeof b) {
      if (!send_all(pair.server, {b, sizeof b})) return;
    }
  });
  bool good = true;
  for (unsigned i = 0; i < 3000 && good; ++i) {
    const std::string message = pattern(32, i);
    good = send_all(pair.client, message) && receive_exactly(pair.client, 32) == message;
  }
  ::shutdown(pair.client, SHUT_WR);
  echo.join();
  REQUIRE(good);
}

TEST_CASE("load: 1,000 connections at once, all in one set", "[load]") {
  const Fd l = listener(1024);
  const Address to = local_of(l);
  std::vector<Fd> clients;
  std::vector<Fd> servers;
  const Epoll set;
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(connected_to(to));
    servers.push_back(accept_from(l));
    set.add(servers.back(), EPOLLIN);
  }
  REQUIRE(set.quiet());
  for (const Fd& client : clients) REQUIRE(send_all(client, "x"));
  int seen = 0;
  while (seen < 1000) {
    const auto events = set.wait(3000);
    REQUIRE_FALSE(events.empty());
    for (const auto& e : events) {
      char b = 0;
      REQUIRE(::recv(e.data.fd, &b, 1, 0) == 1);
      ++seen;
    }
  }
  REQUIRE(set.quiet());
}

TEST_CASE("load: 500 connects at once without blocking", "[load]") {
  const Fd l = listener(1024, AF_INET, SOCK_NONBLOCK);
  const Address to = local_of(l);
  std::vector<Fd> clients;
  std::vector<Fd> servers;
  for (int i = 0; i < 500; ++i) {
    clients.push_back(stream_socket(AF_INET, SOCK_NONBLOCK));
    const Errno e = error_of(::connect(clients.back(), to.get(), to.size));
    REQUIRE((e == 0 || e == EINPROGRESS));
  }
  while (servers.size() < 500) {
    REQUIRE(becomes(l, POLLIN, milliseconds(5000)));
    for (int fd = 0; (fd = ::accept(l, nullptr, nullptr)) >= 0;) servers.emplace_back(fd);
  }
  for (const Fd& client : clients) {
    REQUIRE(becomes(client, POLLOUT));
    REQUIRE(option(client, SOL_SOCKET, SO_ERROR) == 0);
  }
}

TEST_CASE("load: 2,000 connections one after the other", "[load]") {
  const Fd l = listener();
  const Address to = local_of(l);
  for (int i = 0; i < 2000; ++i) {
    Fd client = connected_to(to);
    const Fd server(::accept(l, nullptr, nullptr));
    REQUIRE(server >= 0);
    REQUIRE(send_all(client, "q"));
    char b = 0;
    REQUIRE(::recv(server, &b, 1, 0) == 1);
    client.reset();
    REQUIRE(::recv(server, &b, 1, 0) == 0);
  }
}

TEST_CASE("load: storms of closes in any order leave a working stack", "[load]") {
  std::mt19937 random(12345);  // a fixed seed: every run is the same
  const Fd l = listener(256);
  for (int round = 0; round < 10; ++round) {
    std::vector<Fd> ends;
    for (int i = 0; i < 60; ++i) {
      Pair pair = connected_pair_via(l);
      const auto what = random() % 5;
      if (what == 1) REQUIRE(send_all(pair.client, "unread"));
      if (what == 2) REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
      if (what == 3) set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{1, 0});
      if (what == 4) REQUIRE(send_all(pair.server, pattern(20000)));
      ends.push_back(std::move(pair.client));
      ends.push_back(std::move(pair.server));
      if (what == 4) ends.back().reset();
    }
    std::shuffle(ends.begin(), ends.end(), random);
    ends.clear();
  }
  const Pair pair = connected_pair_via(l);
  REQUIRE(send_all(pair.client, "calm"));
  REQUIRE(receive_exactly(pair.server, 4) == "calm");
}

TEST_CASE("load: messages of every size from 1 to 3,000 bytes keep their bounds in order", "[load]") {
  const Pair pair = connected_pair();
  const std::string data = pattern(3000, 41);
  std::thread sender([&] {
    for (std::size_t n = 1; n <= 3000; n += 13) {
      if (!send_all(pair.client, std::string_view(data).substr(0, n))) return;
    }
  });
  bool good = true;
  for (std::size_t n = 1; n <= 3000; n += 13)
    good = good && receive_exactly(pair.server, n) == data.substr(0, n);
  sender.join();
  REQUIRE(good);
}
