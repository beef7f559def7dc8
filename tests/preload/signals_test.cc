// Handlers of signals: outside the engine, inside it, and while it sleeps.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>

#include "tests/preload/handlers.hh"

using namespace mtcp::preload;
using mtcp::intercept::Services;

TEST_CASE("a handler outside the engine runs at once") {
  control();
  const Handler h(SIGUSR1, detailed);
  send_self(SIGUSR1, 5);
  CHECK(seen.signals == std::vector<int>{SIGUSR1});
  CHECK(seen.values == std::vector<int>{5});
}

TEST_CASE(
    "a handler that arrives inside the engine waits until the call is over, with its siginfo and mask") {
  const Connected pair;
  const Handler h(SIGUSR1, detailed, SA_SIGINFO, SIGHUP);
  const Services& s = *control().services;
  errno = 77;
  CHECK(inside(pair, [&] {
          const std::uint32_t before = *s.signal_count();
          send_self(SIGUSR1, 42);
          CHECK(seen.signals.empty());
          CHECK(*s.signal_count() == before + 1);
          CHECK_FALSE(s.last_signal_restarts());
        }) == 1);
  CHECK(errno == 77);
  CHECK(seen.signals == std::vector<int>{SIGUSR1});
  CHECK(seen.values == std::vector<int>{42});
  CHECK(seen.info.si_signo == SIGUSR1);
  CHECK(seen.info.si_pid == getpid());
  CHECK(has(seen.mask, SIGUSR1));
  CHECK(has(seen.mask, SIGHUP));
  CHECK_FALSE(has(seen.mask, SIGTERM));
  CHECK_FALSE(has(mask_now(), SIGUSR1));
  CHECK_FALSE(has(mask_now(), SIGHUP));
}

TEST_CASE("SA_RESTART, SA_NODEFER and SA_RESETHAND mean what they mean") {
  const Connected pair;
  const Services& s = *control().services;
  {
    const Handler h(SIGUSR1, plain, SA_RESTART | SA_NODEFER);
    inside(pair, [&] {
      send_self(SIGUSR1);
      CHECK(s.last_signal_restarts());
    });
    CHECK(seen.signals.size() == 1);
    CHECK_FALSE(has(seen.mask, SIGUSR1));
  }
  const Handler h(SIGUSR1, plain, static_cast<int>(SA_RESETHAND));
  inside(pair, [&] { send_self(SIGUSR1); });
  CHECK(seen.signals.size() == 1);
  struct sigaction now {};
  CHECK(sigaction(SIGUSR1, nullptr, &now) == 0);
  CHECK(now.sa_handler == SIG_DFL);
}

TEST_CASE("signals that follow a deferred one stay in the kernel, in order, and none is lost") {
  const Connected pair;
  const Handler h1(SIGRTMIN, detailed);
  const Handler h2(SIGUSR1, plain);
  inside(pair, [&] {
    for (int i = 1; i <= 5; ++i) send_self(SIGRTMIN, i);
    send_self(SIGUSR1);
    send_self(SIGUSR1);  // not queued: as in the kernel, the second is the first
    CHECK(seen.signals.empty());
  });
  CHECK(seen.values == std::vector<int>{1, 2, 3, 4, 5});
  CHECK(std::count(seen.signals.begin(), seen.signals.end(), SIGUSR1) == 1);
  CHECK(seen.signals.size() == 6);
  CHECK_FALSE(has(mask_now(), SIGRTMIN));
}

TEST_CASE("a handler that runs at the edge may use sockets") {
  const Connected pair;
  static int other;
  other = pair.b;
  const Handler h(SIGUSR1, [](int sig) {
    plain(sig);
    if (write(other, "x", 1) != 1) abort();
  });
  inside(pair, [&] { send_self(SIGUSR1); });
  CHECK(seen.signals.size() == 1);
  CHECK(recorded().back() == with_fd("send fd=@ n=1 flags=0", pair.b));
}

TEST_CASE("a handler may leave by longjmp, and the engine is usable afterwards") {
  const Connected pair;
  static sigjmp_buf out;
  const Handler h(SIGUSR1, [](int) { siglongjmp(out, 1); });
  volatile bool jumped = false;
  if (sigsetjmp(out, 1) == 0) {
    inside(pair, [&] { send_self(SIGUSR1); });
  } else {
    jumped = true;
  }
  CHECK(jumped);
  CHECK_FALSE(has(mask_now(), SIGUSR1));
  control();
  char p;
  control().results = {1};
  CHECK(read(pair.a, &p, 1) == 1);
  CHECK(recorded().size() == 1);
}

TEST_CASE("while the engine sleeps a handler runs at once") {
  const Connected pair;
  const Handler h(SIGUSR1, plain);
  const Services& s = *control().services;
  inside(pair, [&] {
    s.begin_sleep();
    send_self(SIGUSR1);
    CHECK(seen.signals.size() == 1);
    s.end_sleep();
    send_self(SIGUSR1);
    CHECK(seen.signals.size() == 1);
  });
  CHECK(seen.signals.size() == 2);
}

TEST_CASE("what is deferred runs when the engine goes to sleep") {
  const Connected pair;
  const Handler h(SIGUSR1, plain);
  const Services& s = *control().services;
  inside(pair, [&] {
    send_self(SIGUSR1);
    CHECK(seen.signals.empty());
    s.begin_sleep();
    CHECK(seen.signals.size() == 1);
    s.end_sleep();
  });
  CHECK(seen.signals.size() == 1);
}

TEST_CASE("a handler between the last look and the sleep ends the sleep") {
  const Connected pair;
  const Handler h(SIGUSR1, plain);
  const Services& s = *control().services;
  const timespec long_time{20, 0};
  timespec start{}, end{};
  inside(pair, [&] {
    clock_gettime(CLOCK_MONOTONIC, &start);
    s.begin_sleep();
    send_self(SIGUSR1);  // has run before the kernel is asked to wait
    CHECK(s.kernel->ppoll(nullptr, 0, &long_time, nullptr) == -EINTR);
    CHECK(s.kernel->ppoll(nullptr, 0, nullptr, nullptr) == -EINTR);
    s.end_sleep();
    s.begin_sleep();
    const timespec zero{};
    CHECK(s.kernel->ppoll(nullptr, 0, &zero, nullptr) == 0);
    s.end_sleep();
    clock_gettime(CLOCK_MONOTONIC, &end);
  });
  CHECK(end.tv_sec - start.tv_sec < 10);
}

TEST_CASE("a signal ends a sleep of the engine, whenever it comes") {
  const Connected pair;
  const Handler h(SIGUSR1, plain);
  const Services& s = *control().services;
  const pthread_t sleeper = pthread_self();
  std::atomic<int> round = 0;
  static std::atomic<bool> stop;
  stop = false;
  // One signal for each round, as the sleeper is about to sleep, at no particular time.
  struct Argument {
    std::atomic<int>* round;
    pthread_t sleeper;
  } argument{&round, sleeper};
  pthread_t sender{};
  REQUIRE(pthread_create(
              &sender, nullptr,
              [](void* p) -> void* {
                auto* a = static_cast<Argument*>(p);
                for (int last = 0; !stop;) {
                  const int now = a->round->load();
                  if (now == last) continue;
                  for (int i = 0; i < now * 37 % 2000; ++i) __builtin_ia32_pause();
                  pthread_kill(a->sleeper, SIGUSR1);
                  last = now;
                }
                return nullptr;
              },
              &argument) == 0);
  int missed = 0;
  inside(pair, [&] {
    for (int i = 1; i <= 300; ++i) {
      const std::uint32_t before = *s.signal_count();
      round = i;
      s.begin_sleep();
      const timespec two{2, 0};
      if (*s.signal_count() == before && s.kernel->ppoll(nullptr, 0, &two, nullptr) != -EINTR) ++missed;
      s.end_sleep();
      while (*s.signal_count() == before) {
      }
    }
  });
  stop = true;
  pthread_join(sender, nullptr);
  CHECK(missed == 0);
}

TEST_CASE("faults run at once, inside the engine too") {
  const Connected pair;
  const Handler h(SIGTRAP, plain);
  inside(pair, [&] {
    raise(SIGTRAP);
    CHECK(seen.signals.size() == 1);
  });
  const Handler segv(SIGSEGV, [](int) { _exit(9); });
  CHECK(in_child([&] {
          inside(pair, [] { *static_cast<volatile int*>(nullptr) = 1; });
          return 0;
        }) == 9);
}

TEST_CASE("the engine sees and changes the application's mask, not deferral's") {
  const Connected pair;
  const Handler h(SIGUSR1, plain);
  const Services& s = *control().services;
  sigset_t hup, old;
  sigemptyset(&hup);
  sigaddset(&hup, SIGHUP);
  inside(pair, [&] {
    send_self(SIGUSR1);
    CHECK(s.kernel->set_signal_mask(SIG_BLOCK, &hup, &old) == 0);
    CHECK_FALSE(has(old, SIGTERM));
    CHECK_FALSE(has(old, SIGHUP));
    CHECK(s.kernel->set_signal_mask(SIG_BLOCK, nullptr, &old) == 0);
    CHECK(has(old, SIGHUP));
    CHECK_FALSE(has(old, SIGTERM));
    CHECK(seen.signals.empty());
  });
  CHECK(seen.signals.size() == 1);
  CHECK(has(mask_now(), SIGHUP));
  CHECK_FALSE(has(mask_now(), SIGTERM));
  pthread_sigmask(SIG_UNBLOCK, &hup, nullptr);
}

TEST_CASE("threads that the shim never saw being created defer for themselves") {
  const Connected pair;
  const Handler h(SIGUSR1, [](int) {});
  control().recording = false;
  static std::atomic<int> failures;
  failures = 0;
  std::vector<pthread_t> threads(4);
  for (pthread_t& t : threads) {
    REQUIRE(pthread_create(
                &t, nullptr,
                [](void* p) -> void* {
                  const int fd = *static_cast<int*>(p);
                  for (int i = 0; i < 2000; ++i) {
                    if (i % 16 == 0) pthread_kill(pthread_self(), SIGUSR1);
                    if (send(fd, "", 0, MSG_DONTWAIT) != 0) ++failures;
                  }
                  return nullptr;
                },
                const_cast<Connected*>(&pair)) == 0);
  }
  for (int i = 0; i < 2000; ++i) pthread_kill(threads[static_cast<size_t>(i) % 4], i % 2 == 0 ? SIGUSR1 : 0);
  for (const pthread_t t : threads) pthread_join(t, nullptr);
  CHECK(failures == 0);
}
