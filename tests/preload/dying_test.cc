// Signals that kill: the engine hears of it first, and nobody can tell the difference.
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/preload/handlers.hh"

using namespace mtcp::preload;

namespace {

struct End {
  int status = 0;
  std::string told;
};

// What becomes of a child that does `f`, and what its engine was told.
End end_of(const std::function<void()>& f) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    // The test framework has handlers of its own.
    for (const int sig : {SIGHUP, SIGINT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2}) signal(sig, SIG_DFL);
    control().exit_fd = ends[1];
    f();
    syscall(SYS_exit_group, 0);
  }
  close(ends[1]);
  End end;
  char c;
  while (read(ends[0], &c, 1) == 1) end.told += c;
  close(ends[0]);
  REQUIRE(waitpid(pid, &end.status, 0) == pid);
  return end;
}

}  // namespace

TEST_CASE("a signal without handler kills as ever, and the engine is told before") {
  control();
  for (const int sig : {SIGHUP, SIGINT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2}) {
    INFO("signal " << sig);
    const End end = end_of([sig] { kill(getpid(), sig); });
    CHECK(WIFSIGNALED(end.status));
    CHECK(WTERMSIG(end.status) == sig);
    CHECK(end.told == "d");
  }
}

TEST_CASE("a signal that kills waits until the thread has left the engine, or comes while it sleeps there") {
  const Connected pair;
  const End inside_end = end_of([&] {
    inside(pair, [] {
      send_self(SIGTERM);
      if (write(control().exit_fd, "i", 1) != 1) abort();
    });
  });
  CHECK(WTERMSIG(inside_end.status) == SIGTERM);
  CHECK(inside_end.told == "id");
  const End asleep = end_of([&] {
    const pid_t self = getpid();
    if (fork() == 0) {
      control().exit_fd = -1;
      usleep(50'000);
      kill(self, SIGTERM);
      syscall(SYS_exit_group, 0);
    }
    pollfd p{pair.a, POLLIN, 0};
    poll(&p, 1, 5000);
  });
  CHECK(WTERMSIG(asleep.status) == SIGTERM);
  CHECK(asleep.told == "d");
}

TEST_CASE("the application sees the default action where it left it, and may go back to it") {
  control();
  const End end = end_of([] {
    struct sigaction now {};
    if (sigaction(SIGTERM, nullptr, &now) != 0 || now.sa_handler != SIG_DFL || (now.sa_flags & SA_SIGINFO) != 0) abort();
    if (signal(SIGTERM, plain) != SIG_DFL || signal(SIGTERM, SIG_DFL) != plain) abort();
    if (signal(SIGTERM, plain) != SIG_DFL) abort();
    kill(getpid(), SIGTERM);
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    struct sigaction was {};
    if (sigaction(SIGTERM, &standard, &was) != 0 || was.sa_handler != plain) abort();
    kill(getpid(), SIGTERM);
  });
  CHECK(WTERMSIG(end.status) == SIGTERM);
  CHECK(end.told == "d");
}

TEST_CASE("an ignored signal stays ignored, and a blocked one pending") {
  control();
  const End end = end_of([] {
    signal(SIGTERM, SIG_IGN);
    kill(getpid(), SIGTERM);
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, nullptr);
    kill(getpid(), SIGUSR1);
    int sig = 0;
    if (sigwait(&usr1, &sig) != 0 || sig != SIGUSR1) abort();
  });
  CHECK(end.status == 0);
  CHECK(end.told == "x");
}

TEST_CASE("what exec and posix_spawn start has the default actions") {
  control();
  pid_t pid = 0;
  const char* const arguments[] = {"sh", "-c", "kill -TERM $$", nullptr};
  REQUIRE(posix_spawn(&pid, "/bin/sh", nullptr, nullptr, const_cast<char**>(arguments), environ) == 0);
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}
