// Threads in one Process, for the tests that look at them all at once.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/intercept/bench.hh"

namespace mtcp::intercept::testing {

inline Options with_service_thread() {
  Options o = Bench::default_options();
  o.service_thread = true;
  o.poll.spin = stack::microseconds(5);
  return o;
}

// A Bench for threads. Assertions are Catch2's, which only the test's own thread may use: others count
// mistakes.
struct Threads {
  explicit Threads(Options o = with_service_thread(), Process::OpenDevice open = nullptr) : bench(std::move(o), open) {
    bench.kernel.counting = false;
  }
  ~Threads() { join(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  void start(std::function<void()> body) { running.emplace_back(std::move(body)); }
  // Those that end only when the others have, and somebody has told them.
  void serve(std::function<void()> body) { serving.emplace_back(std::move(body)); }
  void join() {
    for (auto* group : {&running, &serving}) {
      for (std::thread& t : *group) t.join();
      group->clear();
    }
  }
  // Ends the threads that wait for connections once all others are through.
  void finish(int listener) {
    for (std::thread& t : running) t.join();
    running.clear();
    expect(bench->shutdown(listener, SHUT_RD) == 0);
    join();
  }
  void expect(bool right) { mistakes += right ? 0 : 1; }

  bool send_all(int fd, const std::string& s) {
    for (std::size_t done = 0; done < s.size();) {
      const ssize_t n = bench->send(fd, s.data() + done, s.size() - done, MSG_NOSIGNAL);
      if (n <= 0) return false;
      done += static_cast<std::size_t>(n);
    }
    return true;
  }
  std::string receive(int fd, std::size_t n) {
    std::string s(n, '\0');
    std::size_t done = 0;
    while (done < n) {
      const ssize_t got = bench->recv(fd, s.data() + done, n - done, 0);
      if (got <= 0) break;
      done += static_cast<std::size_t>(got);
    }
    s.resize(done);
    return s;
  }
  int connected(std::uint16_t port) {
    const int fd = bench.tcp();
    if (bench.connect(fd, kOwn, port) == 0) return fd;
    bench->close(fd);
    return -1;
  }

  Bench bench;
  std::vector<std::thread> running, serving;
  std::atomic<int> mistakes{0};
};

inline std::string message(int who, int round) {
  std::string s(static_cast<std::size_t>(1 + (who * 7919 + round * 104729) % 9000), '\0');
  for (std::size_t i = 0; i < s.size(); ++i)
    s[i] = static_cast<char>(static_cast<std::size_t>(who + round) * 31 + i);
  return s;
}

}  // namespace mtcp::intercept::testing
