// Signals that arrive while a call waits: EINTR, SA_RESTART, the masks of epoll_pwait, ppoll and pselect.
#include <pthread.h>
#include <signal.h>
#include <sys/select.h>

#include <atomic>
#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

std::atomic<int> g_handled{0};

// Installs a handler for SIGUSR1 and sends it to the calling thread every 15 ms until it goes out of scope;
// after `then_after` signals it calls `then` once, so that a restarted call has something to find.
class Interrupter {
 public:
  template <typename Then>
  Interrupter(int flags, Then then, int then_after = 4) : target_(::pthread_self()) {
    struct sigaction action {};
    action.sa_handler = [](int) { ++g_handled; };
    action.sa_flags = flags;
    ::sigaction(SIGUSR1, &action, &old_);
    g_handled = 0;
    thread_ = std::thread([this, then, then_after] {
      for (int i = 1; !stop_; ++i) {
        std::this_thread::sleep_for(milliseconds(15));
        if (stop_) return;
        ::pthread_kill(target_, SIGUSR1);
        if (i == then_after) then();
      }
    });
  }
  explicit Interrupter(int flags)
      : Interrupter(
            flags, [] {}, -1) {}
  ~Interrupter() {
    stop_ = true;
    thread_.join();
    ::sigaction(SIGUSR1, &old_, nullptr);
  }

 private:
  pthread_t target_;
  struct sigaction old_ {};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

sigset_t only(int signal) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, signal);
  return set;
}

}  // namespace

TEST_CASE("signal: interrupts recv with EINTR", "[signal]") {
  const Pair pair = connected_pair();
  const Interrupter interrupter(0);
  char b = 0;
  REQUIRE(error_of(::recv(pair.client, &b, 1, 0)) == EINTR);
  REQUIRE(g_handled >= 1);
}

TEST_CASE("signal: with SA_RESTART recv goes on", "[signal]") {
  const Pair pair = connected_pair();
  const Interrupter interrupter(SA_RESTART, [&] { send_all(pair.server, "x"); });
  char b = 0;
  REQUIRE(::recv(pair.client, &b, 1, 0) == 1);
  REQUIRE(g_handled >= 1);  // signals that are pending together are one
}

TEST_CASE("signal: with SA_RESTART and SO_RCVTIMEO recv is EINTR all the same", "[signal]") {
  const Pair pair = connected_pair();
  set_option(pair.client, SOL_SOCKET, SO_RCVTIMEO, timeval{5, 0});
  const Interrupter interrupter(SA_RESTART);
  char b = 0;
  REQUIRE(error_of(::recv(pair.client, &b, 1, 0)) == EINTR);
}

TEST_CASE("signal: interrupts accept with EINTR", "[signal]") {
  const Fd l = listener();
  const Interrupter interrupter(0);
  REQUIRE(error_of(::accept(l, nullptr, nullptr)) == EINTR);
}

TEST_CASE("signal: with SA_RESTART accept goes on", "[signal]") {
  const Fd l = listener();
  const Address to = local_of(l);
  std::atomic<int> client{-1};
  int accepted = -1;
  {
    const Interrupter interrupter(SA_RESTART, [&] {
      client = ::socket(AF_INET, SOCK_STREAM, 0);
      if (::connect(client, to.get(), to.size) != 0) std::abort();
    });
    accepted = ::accept(l, nullptr, nullptr);
  }
  const Fd first(accepted);
  const Fd second(client);
  REQUIRE(accepted >= 0);
  REQUIRE(g_handled >= 1);  // signals that are pending together are one
}

TEST_CASE("signal: interrupts a write that waits for room", "[signal]") {
  const Pair pair = small_pair();
  REQUIRE(fill(pair.client) > 0);
  const Interrupter interrupter(0);
  const std::string data = pattern(1 << 20);
  REQUIRE(error_of(::send(pair.client, data.data(), data.size(), 0)) == EINTR);
}

TEST_CASE("signal: a write that has sent a part returns the part", "[signal]") {
  const Pair pair = small_pair();
  const Interrupter interrupter(0);
  const std::string data = pattern(4 << 20);
  const ssize_t n = ::send(pair.client, data.data(), data.size(), 0);
  REQUIRE(n > 0);
  REQUIRE(n < static_cast<ssize_t>(data.size()));
}

TEST_CASE("signal: MSG_WAITALL returns what had come", "[signal]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "abc"));
  REQUIRE(becomes(pair.client, POLLIN));
  const Interrupter interrupter(0);
  char b[10];
  REQUIRE(::recv(pair.client, b, 10, MSG_WAITALL) == 3);
}

TEST_CASE("signal: interrupts epoll_wait and poll, SA_RESTART or not", "[signal]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  for (const int flags : {0, SA_RESTART}) {
    const Interrupter interrupter(flags);
    epoll_event e{};
    pollfd p{pair.client, POLLIN, 0};
    REQUIRE(error_of(::epoll_wait(set, &e, 1, 5000)) == EINTR);
    REQUIRE(error_of(::epoll_wait(set, &e, 1, -1)) == EINTR);
    REQUIRE(error_of(::poll(&p, 1, 5000)) == EINTR);
  }
}

TEST_CASE("signal: interrupts select, SA_RESTART or not", "[signal]") {
  const Pair pair = connected_pair();
  for (const int flags : {0, SA_RESTART}) {
    const Interrupter interrupter(flags);
    fd_set r;
    FD_ZERO(&r);
    FD_SET(pair.client, &r);
    timeval time{5, 0};
    REQUIRE(error_of(::select(pair.client + 1, &r, nullptr, nullptr, &time)) == EINTR);
  }
}

TEST_CASE("signal: does not interrupt calls that find what they want", "[signal]") {
  const Pair pair = connected_pair();
  const Interrupter interrupter(0);
  const Stopwatch watch;
  while (watch.elapsed() < milliseconds(120) || g_handled == 0) {
    REQUIRE(::send(pair.client, "x", 1, 0) == 1);
    pollfd p{pair.server, POLLIN, 0};
    while (::poll(&p, 1, 1000) < 0) REQUIRE(errno == EINTR);
    REQUIRE(p.revents == POLLIN);
    char b = 0;
    REQUIRE(::recv(pair.server, &b, 1, 0) == 1);
  }
  REQUIRE(g_handled >= 1);
}

TEST_CASE("signal: an ignored signal interrupts nothing", "[signal]") {
  const Pair pair = connected_pair();
  const Interrupter interrupter(0, [&] { send_all(pair.server, "x"); });
  ::signal(SIGUSR1, SIG_IGN);
  char b = 0;
  REQUIRE(::recv(pair.client, &b, 1, 0) == 1);
  REQUIRE(g_handled == 0);
}

TEST_CASE("signal: a handler may use sockets itself", "[signal]") {
  static int fds[2];
  const Pair pair = connected_pair();
  const Pair other = connected_pair();
  fds[0] = other.client;
  struct sigaction action {};
  struct sigaction old {};
  action.sa_handler = [](int) {
    if (::send(fds[0], "h", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) ::abort();
  };
  ::sigaction(SIGUSR2, &action, &old);
  const pthread_t self = ::pthread_self();
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(40));
    ::pthread_kill(self, SIGUSR2);
  });
  char b = 0;
  const Errno e = error_of(::recv(pair.client, &b, 1, 0));
  later.join();
  ::sigaction(SIGUSR2, &old, nullptr);
  REQUIRE(e == EINTR);
  REQUIRE(receive_exactly(other.server, 1) == "h");
}

TEST_CASE("signal: epoll_pwait lets a blocked signal in while it waits", "[signal]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  struct sigaction action {};
  struct sigaction old_action {};
  action.sa_handler = [](int) { ++g_handled; };
  ::sigaction(SIGUSR1, &action, &old_action);
  g_handled = 0;
  const sigset_t blocked = only(SIGUSR1);
  sigset_t old;
  ::pthread_sigmask(SIG_BLOCK, &blocked, &old);
  ::pthread_kill(::pthread_self(), SIGUSR1);
  epoll_event e{};
  const int plain = ::epoll_wait(set, &e, 1, 20);
  const int before = g_handled;
  const Errno result = error_of(::epoll_pwait(set, &e, 1, 5000, &old));
  const int after = g_handled;
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
  ::sigaction(SIGUSR1, &old_action, nullptr);
  REQUIRE(plain == 0);
  REQUIRE(before == 0);
  REQUIRE(result == EINTR);
  REQUIRE(after == 1);
}

TEST_CASE("signal: ppoll and pselect keep a signal out while they wait", "[signal]") {
  const Pair pair = connected_pair();
  const sigset_t blocked = only(SIGUSR1);
  const Interrupter interrupter(0);
  pollfd p{pair.client, POLLIN, 0};
  const timespec time{0, 60000000};
  REQUIRE(error_of(::ppoll(&p, 1, &time, &blocked)) == 0);
  fd_set r;
  FD_ZERO(&r);
  FD_SET(pair.client, &r);
  REQUIRE(error_of(::pselect(pair.client + 1, &r, nullptr, nullptr, &time, &blocked)) == 0);
}

TEST_CASE("signal: the mask of the thread is what it was after epoll_pwait", "[signal]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.client, EPOLLIN);
  const sigset_t blocked = only(SIGUSR1);
  epoll_event e{};
  REQUIRE(::epoll_pwait(set, &e, 1, 10, &blocked) == 0);
  sigset_t now;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &now);
  REQUIRE(::sigismember(&now, SIGUSR1) == 0);
}
