// A Process on the loopback wire, as the shim would hold it.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "tests/intercept/fake_kernel.hh"

namespace mtcp::intercept::testing {

// The stack's own address; another host of its network would be 10.77.0.9.
inline constexpr const char* kOwn = "10.77.0.1";

class Bench {
 public:
  explicit Bench(Options o = default_options(), Process::OpenDevice open = nullptr) : kinds(4096) {
    table.kinds = kinds.data();
    table.size = static_cast<int>(kinds.size());
    services.kernel = &kernel;
    services.fds = &table;
    services.signal_count = [] { return static_cast<const volatile std::uint32_t*>(&signals); };
    services.last_signal_restarts = [] { return false; };
    services.begin_sleep = [] {};
    services.end_sleep = [] {};
    services.internal_thread = [] {};
    process = std::make_unique<Process>(services, std::move(o), open);
  }
  ~Bench() {
    for (int fd = 0; fd < process->files.end(); ++fd) {
      if (process->files.kind(fd) == FdKind::socket || process->files.kind(fd) == FdKind::epoll)
        process->close(fd);
    }
    process->shards.for_each([](Shard& s) { s.pool.clear(); });
  }

  static Options default_options() {
    Options o;
    o.stack.interface.addresses.push_back({stack::IpAddress::v4(10, 77, 0, 1), 120});
    o.device.packets = 8192;
    o.service_thread = false;
    o.poll.spin = stack::microseconds(0);
    return o;
  }

  Process& operator*() { return *process; }
  Process* operator->() { return process.get(); }

  // Runs the stack until nothing is left to do.
  void settle() {
    const Guard guard(*process, Guard::Everything{});
    if (process->first().instance == nullptr) return;
    Instance& stack = *process->first().instance;
    for (int i = 0; i < 100; ++i) {
      const bool did = stack.turn(now()) != 0;
      stack.worker().flush(now());
      if (!did && !stack.worker().pending()) break;
    }
  }
  static stack::Time now() { return intercept::now(); }

  int tcp(int flags = 0, int domain = AF_INET) { return process->socket(domain, SOCK_STREAM | flags, 0); }
  int set(int fd, int level, int name, int value) {
    return process->setsockopt(fd, level, name, &value, sizeof value);
  }
  // The value, or -errno.
  int get(int fd, int level, int name) {
    int value = 0;
    socklen_t n = sizeof value;
    const int error = process->getsockopt(fd, level, name, &value, &n);
    return error != 0 ? error : value;
  }

  // A listener on the stack's address; `port` is what the kernel chose.
  int listener(int flags = 0, int backlog = 16) {
    const int fd = tcp(flags);
    const sockaddr_in a = address(kOwn, 0);
    if (process->bind(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0) return -1;
    if (process->listen(fd, backlog) != 0) return -1;
    port = port_of(fd);
    return fd;
  }
  int connect(int fd, const char* host, std::uint16_t to) {
    const sockaddr_in a = address(host, to);
    return process->connect(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a);
  }
  std::uint16_t port_of(int fd) {
    sockaddr_in a{};
    socklen_t n = sizeof a;
    if (process->getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n) != 0) return 0;
    return ntohs(a.sin_port);
  }
  static sockaddr_in address(const char* host, std::uint16_t p) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(p);
    inet_pton(AF_INET, host, &a.sin_addr);
    return a;
  }

  // Two connected sockets of this process. `flags` are for the accepted one.
  struct Pair {
    int client = -1, server = -1, listener = -1;
  };
  Pair pair(int flags = 0) {
    Pair p;
    p.listener = listener();
    p.client = tcp();
    if (connect(p.client, kOwn, port) != 0) return p;
    p.server = process->accept4(p.listener, nullptr, nullptr, flags);
    return p;
  }
  ssize_t send(int fd, const std::string& s, int flags = 0) {
    return process->send(fd, s.data(), s.size(), flags);
  }
  // What recv gives, or "error N".
  std::string recv(int fd, std::size_t most = 65536, int flags = 0) {
    std::string s(most, '\0');
    const ssize_t n = process->recv(fd, s.data(), most, flags);
    if (n < 0) return "error " + std::to_string(-n);
    s.resize(static_cast<std::size_t>(n));
    return s;
  }

  static inline volatile std::uint32_t signals = 0;
  FakeKernel kernel;
  std::vector<std::atomic<std::uint8_t>> kinds;
  FdTable table;
  Services services;
  std::uint16_t port = 0;
  std::unique_ptr<Process> process;
};

}  // namespace mtcp::intercept::testing
