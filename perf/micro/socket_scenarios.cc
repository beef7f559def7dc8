// The socket layer: calls of an application, both of whose ends are on the loopback wire.
#include <memory>
#include <vector>

#include "perf/micro/meter.hh"
#include "perf/micro/scenarios.hh"
#include "tests/intercept/bench.hh"

// In place of intercept/support/clock.cc: virtual, so that no timer runs out earlier on a slower machine.
namespace mtcp::intercept {
namespace {
stack::Time virtual_now = stack::Time{} + stack::seconds(1);
}
void clock_start() {}
stack::Time now() { return virtual_now; }
}  // namespace mtcp::intercept

namespace mtcp::perf {
namespace {

using intercept::testing::Bench;

constexpr timespec kAtOnce{};

// Pairs of connected sockets, the servers in an epoll set.
struct Sockets {
  explicit Sockets(int number) {
    bench.kernel.counting = false;
    const int listener = bench.listener(SOCK_NONBLOCK, number);
    set = ::epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < number; i++) {
      const int client = bench.tcp(SOCK_NONBLOCK);
      (void)bench.connect(client, intercept::testing::kOwn, bench.port);
      const int server = bench->accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      epoll_event e{.events = EPOLLIN, .data = {.fd = server}};
      good = good && server >= 0 && bench->epoll_ctl(set, EPOLL_CTL_ADD, server, &e) == 0;
      clients.push_back(client);
    }
    events.resize(static_cast<std::size_t>(number));
  }
  int wait() {
    return bench->epoll_wait(set, events.data(), static_cast<int>(events.size()), &kAtOnce, nullptr);
  }
  Bench bench;
  int set = -1;
  std::vector<int> clients;
  std::vector<epoll_event> events;
  bool good = true;
};

// 64 of 1,024 are ready, and stay so.
std::uint64_t epoll() {
  constexpr int kMembers = 1024, kReady = 64;
  constexpr std::uint64_t kCalls = 200;
  Sockets s(kMembers);
  for (int i = 0; i < kReady; i++) (void)s.bench->send(s.clients[static_cast<std::size_t>(i * 16)], "x", 1, 0);
  if (!s.good || s.wait() != kReady) return 0;
  const Meter meter;
  const Count count;
  for (std::uint64_t i = 0; i < kCalls; i++)
    if (s.wait() != kReady) return 0;
  return kCalls;
}

// As a server does it: wait, receive, answer; and the client that asks and reads.
std::uint64_t calls() {
  constexpr std::uint64_t kNumber = 1000;
  Sockets s(1);
  std::array<char, 64> message{};
  if (!s.good) return 0;
  const Meter meter;
  const Count count;
  for (std::uint64_t i = 0; i < kNumber; i++) {
    if (s.bench->send(s.clients[0], message.data(), message.size(), 0) != 64 || s.wait() != 1) return 0;
    const int fd = s.events[0].data.fd;
    if (s.bench->recv(fd, message.data(), message.size(), 0) != 64) return 0;
    if (s.bench->send(fd, message.data(), message.size(), 0) != 64) return 0;
    if (s.bench->recv(s.clients[0], message.data(), message.size(), 0) != 64) return 0;
    intercept::virtual_now += stack::microseconds(50);
  }
  return kNumber;
}

// A whole connection: socket, connect, accept, a message each way, close.
std::uint64_t connections() {
  constexpr std::uint64_t kNumber = 500;
  Bench bench;
  bench.kernel.counting = false;
  const int listener = bench.listener(SOCK_NONBLOCK, 128);
  std::array<char, 64> message{};
  const auto one = [&] {
    const int client = bench.tcp();
    if (bench.connect(client, intercept::testing::kOwn, bench.port) != 0) return false;
    const int server = bench->accept4(listener, nullptr, nullptr, 0);
    const bool good = bench->send(client, message.data(), 64, 0) == 64 && bench->recv(server, message.data(), 64, 0) == 64 &&
                      bench->send(server, message.data(), 64, 0) == 64 && bench->close(server) == 0 &&
                      bench->recv(client, message.data(), 64, 0) == 64 && bench->close(client) == 0;
    intercept::virtual_now += stack::microseconds(200);
    return good;
  };
  for (int i = 0; i < 50; i++)
    if (!one()) return 0;
  const Meter meter;
  const Count count;
  for (std::uint64_t i = 0; i < kNumber; i++)
    if (!one()) return 0;
  return kNumber;
}

constexpr Scenario kScenarios[] = {
    {"epoll", "epoll_wait on 1,024 sockets of which 64 are ready", epoll},
    {"socket-calls", "send, epoll_wait, recv, send, recv of 64 bytes: calls and the loopback wire", calls},
    {"socket-connection", "socket, connect, accept, 64 bytes there and back, close", connections},
};

}  // namespace

std::span<const Scenario> socket_scenarios() { return kScenarios; }

}  // namespace mtcp::perf
