// sigaction and its older kin: nobody can tell that handlers are wrapped.
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

namespace {

// Installed before main, so before there is an engine.
const bool installed_early = [] {
  signal(SIGUSR2, plain);
  return true;
}();

// A pointer of which the compiler cannot tell that it is another one's equal.
template <class T>
T* launder(T* p) {
  __asm__("" : "+r"(p));
  return p;
}

}  // namespace

TEST_CASE("sigaction reports what the application installed") {
  control();
  struct sigaction a {
  }, old{};
  a.sa_handler = plain;
  a.sa_flags = SA_RESTART;
  sigaddset(&a.sa_mask, SIGHUP);
  REQUIRE(sigaction(SIGUSR1, &a, nullptr) == 0);
  REQUIRE(sigaction(SIGUSR1, nullptr, &old) == 0);
  CHECK(old.sa_handler == plain);
  CHECK((old.sa_flags & (SA_RESTART | SA_SIGINFO)) == SA_RESTART);
  CHECK(has(old.sa_mask, SIGHUP));
  a.sa_handler = SIG_IGN;
  a.sa_flags = 0;
  REQUIRE(sigaction(SIGUSR1, &a, &old) == 0);
  CHECK(old.sa_handler == plain);
  REQUIRE(sigaction(SIGUSR1, nullptr, &old) == 0);
  CHECK(old.sa_handler == SIG_IGN);
  a.sa_handler = SIG_DFL;
  struct sigaction* const same = &a;
  REQUIRE(sigaction(SIGUSR1, &a, launder(same)) == 0);
  CHECK(a.sa_handler == SIG_IGN);
  CHECK(sigaction(SIGKILL, &old, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(sigaction(0, nullptr, &old) == -1);
  CHECK(sigaction(65, nullptr, &old) == -1);
}

TEST_CASE("a handler installed before the engine was loaded is deferred too") {
  CHECK(installed_early);
  const Connected pair;
  seen = {};
  struct sigaction now {};
  REQUIRE(sigaction(SIGUSR2, nullptr, &now) == 0);
  CHECK(now.sa_handler == plain);
  CHECK((now.sa_flags & SA_RESTART) != 0);
  inside(pair, [&] {
    send_self(SIGUSR2);
    CHECK(seen.signals.empty());
  });
  CHECK(seen.signals == std::vector<int>{SIGUSR2});
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
TEST_CASE("the older calls install handlers that are deferred too, and return the old ones") {
  const Connected pair;
  const Services& s = *control().services;
  seen = {};
  CHECK(signal(SIGUSR1, plain) == SIG_DFL);
  CHECK(signal(SIGUSR1, plain) == plain);
  inside(pair, [&] {
    send_self(SIGUSR1);
    CHECK(seen.signals.empty());
    CHECK(s.last_signal_restarts());
  });
  CHECK(seen.signals.size() == 1);
  CHECK(siginterrupt(SIGUSR1, 1) == 0);
  inside(pair, [&] {
    send_self(SIGUSR1);
    CHECK_FALSE(s.last_signal_restarts());
  });
  CHECK(siginterrupt(SIGUSR1, 0) == 0);
  CHECK(signal(SIGUSR1, SIG_IGN) == plain);
  CHECK(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
  CHECK(sysv_signal(SIGUSR1, plain) == SIG_DFL);
  inside(pair, [&] { send_self(SIGUSR1); });
  CHECK(seen.signals.size() == 3);
  CHECK(signal(SIGUSR1, SIG_DFL) == SIG_DFL);  // it was for one signal only
}

#pragma GCC diagnostic pop
