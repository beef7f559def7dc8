// fork, exec, the end of a process, and what comes before privileges go.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>

#include "tests/preload/under_shim.hh"

using namespace mtcp::preload;
using Calls = std::vector<std::string>;

namespace {

// What `body` writes to the descriptor that it gets, run in a child; the child's status in `status`.
std::string output_of(const std::function<void(int)>& body, int* status = nullptr) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    close(ends[0]);
    body(ends[1]);
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char p[200];
  for (ssize_t n; (n = read(ends[0], p, sizeof p)) > 0;) text.append(p, static_cast<size_t>(n));
  close(ends[0]);
  int ignored;
  REQUIRE(waitpid(pid, status != nullptr ? status : &ignored, 0) == pid);
  return text;
}

void write_calls(int fd) {
  for (const std::string& call : recorded()) {
    if (dprintf(fd, "%s\n", call.c_str()) < 0) abort();
  }
}

}  // namespace

TEST_CASE("fork tells the engine before it, and after it on both sides") {
  control();
  const std::string child = output_of(write_calls);
  CHECK(recorded() == Calls{"before_fork", "after_fork child=0"});
  CHECK(child == "before_fork\nafter_fork child=1\n");
}

TEST_CASE("a child of vfork cannot touch its parent's sockets") {
  Connected pair;
  control();
  const pid_t pid = vfork();
  if (pid == 0) {
    close(pair.a);
    execl("/bin/true", "true", nullptr);
    _exit(127);
  }
  int status = -1;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
  CHECK(control().services->fds->kind(pair.a) == mtcp::intercept::FdKind::socket);
  CHECK(write(pair.a, "x", 1) == 1);
}

TEST_CASE("exec tells the engine before it, and after it if it fails") {
  control();
  char arg[] = "x", value[] = "A=b";
  char* const argv[] = {arg, nullptr};
  char* const envp[] = {value, nullptr};
  const Calls told{"before_exec", "after_failed_exec"};
  CHECK(execv("/nonexistent", argv) == -1);
  CHECK(errno == ENOENT);
  CHECK(recorded() == told);
  CHECK(execve("/nonexistent", argv, envp) == -1);
  CHECK(execvp("/nonexistent", argv) == -1);
  CHECK(execvpe("/nonexistent", argv, envp) == -1);
  CHECK(execl("/nonexistent", "x", nullptr) == -1);
  CHECK(execlp("/nonexistent", "x", nullptr) == -1);
  CHECK(execle("/nonexistent", "x", nullptr, envp) == -1);
  CHECK(recorded().size() == 12);
}

TEST_CASE("the execl functions pass their arguments and environment on") {
  control();
  const auto in = [](const std::function<void()>& run) {
    return output_of([&](int fd) {
      dup2(fd, 1);
      run();
    });
  };
  char value[] = "GIVEN=yes";
  char* const envp[] = {value, nullptr};
  setenv("GIVEN", "inherited", 1);
  CHECK(in([] { execl("/bin/sh", "sh", "-c", "echo $1-$2-$GIVEN", "x", "one", "two", nullptr); }) ==
        "one-two-inherited\n");
  CHECK(in([] { execlp("sh", "sh", "-c", "echo $1-$2", "x", "one", "two", nullptr); }) == "one-two\n");
  CHECK(in([&] { execle("/bin/sh", "sh", "-c", "echo $1-$GIVEN", "x", "one", nullptr, envp); }) ==
        "one-yes\n");
  unsetenv("GIVEN");
}

TEST_CASE("a program that gets listeners is told which by its environment, whatever that is otherwise") {
  control().listeners = "7:511,9:64,";
  char name[] = "sh", flag[] = "-c", text[] = "echo $MTCP_LISTENERS $KEPT", kept[] = "KEPT=yes", stale[] = "MTCP_LISTENERS=1:1,";
  char* const argv[] = {name, flag, text, nullptr};
  char* const envp[] = {stale, kept, nullptr};
  const auto in = [](const std::function<void()>& run) {
    return output_of([&](int fd) {
      dup2(fd, 1);
      run();
    });
  };
  setenv("KEPT", "inherited", 1);
  CHECK(in([&] { execve("/bin/sh", argv, envp); }) == "7:511,9:64, yes\n");
  CHECK(in([&] { execvp("sh", argv); }) == "7:511,9:64, inherited\n");
  CHECK(in([&] { execl("/bin/sh", "sh", "-c", text, nullptr); }) == "7:511,9:64, inherited\n");
  CHECK(in([&] {
          pid_t pid = 0;
          if (posix_spawn(&pid, "/bin/sh", nullptr, nullptr, argv, envp) == 0) waitpid(pid, nullptr, 0);
        }) == "7:511,9:64, yes\n");
  control().listeners.clear();
  unsetenv("KEPT");
}

TEST_CASE("a listener that was left to this program is taken up when its name is asked for, and when it listens") {
  REQUIRE(std::string(getenv("MTCP_LISTENERS")) == "900:100,901:200b,");  // this program's: tests/preload/meson.build
  const int made = static_cast<int>(syscall(41 /* socket */, AF_INET, SOCK_DGRAM, 0));
  const int unknown = fcntl(made, F_DUPFD, 902);
  REQUIRE(dup2(made, 900) == 900);
  REQUIRE(dup2(made, 901) == 901);
  control();
  sockaddr_in address{};
  socklen_t size = sizeof address;
  for (const int fd : {unknown, 901, 901}) {
    size = sizeof address;
    CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  }
  CHECK(recorded() == Calls{"take_up_listener fd=901 backlog=200 nonblocking=0", "getsockname fd=901", "getsockname fd=901"});
  CHECK(listen(900, 5) == -1);
  CHECK(recorded() == Calls{"take_up_listener fd=900 backlog=100 nonblocking=1", "listen fd=900 backlog=5"});
  close(901);
  REQUIRE(dup2(unknown, 901) == 901);
  CHECK(getsockname(901, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  CHECK(recorded() == Calls{"close fd=901"});  // once
  for (const int fd : {900, 901, unknown, made}) close(fd);
}

TEST_CASE("posix_spawn tells the engine around it and makes the child") {
  control();
  char name[] = "true";
  char* const argv[] = {name, nullptr};
  pid_t pid = 0;
  int status = -1;
  REQUIRE(posix_spawn(&pid, "/bin/true", nullptr, nullptr, argv, environ) == 0);
  CHECK(recorded() == Calls{"before_spawn", "after_spawn made=1"});
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
  REQUIRE(posix_spawnp(&pid, "true", nullptr, nullptr, argv, environ) == 0);
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(posix_spawn(&pid, "/nonexistent", nullptr, nullptr, argv, environ) == ENOENT);
}

TEST_CASE("posix_spawn tells the engine what the child does with its descriptors") {
  control();
  char name[] = "true";
  char* const argv[] = {name, nullptr};
  posix_spawn_file_actions_t actions;
  REQUIRE(posix_spawn_file_actions_init(&actions) == 0);
  REQUIRE(posix_spawn_file_actions_addclose(&actions, 77) == 0);
  REQUIRE(posix_spawn_file_actions_init(&actions) == 0);  // begins anew
  REQUIRE(posix_spawn_file_actions_adddup2(&actions, 1, 8) == 0);
  REQUIRE(posix_spawn_file_actions_addclose(&actions, 8) == 0);
  REQUIRE(posix_spawn_file_actions_addopen(&actions, 9, "/dev/null", O_RDONLY, 0) == 0);
  REQUIRE(posix_spawn_file_actions_addclosefrom_np(&actions, 20) == 0);
  for (int i = 0; i < 6; ++i) REQUIRE(posix_spawn_file_actions_adddup2(&actions, 2, 30 + i) == 0);
  CHECK(posix_spawn_file_actions_addclose(&actions, -1) == EBADF);
  pid_t pid = 0;
  int status = -1;
  REQUIRE(posix_spawn(&pid, "/bin/true", &actions, nullptr, argv, environ) == 0);
  CHECK(recorded() == Calls{"before_spawn dup2=1,8 close=8 close=9 close_from=20 dup2=2,30 dup2=2,31 dup2=2,32 dup2=2,33 "
                            "dup2=2,34 dup2=2,35",
                            "after_spawn made=1"});
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
  CHECK(posix_spawn(&pid, "/nonexistent", &actions, nullptr, argv, environ) == ENOENT);
  CHECK(recorded().back() == "after_spawn made=0");
  REQUIRE(posix_spawn_file_actions_destroy(&actions) == 0);
  REQUIRE(posix_spawn(&pid, "/bin/true", nullptr, nullptr, argv, environ) == 0);
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(recorded() == Calls{"before_spawn", "after_spawn made=1"});
}

TEST_CASE("system and popen tell the engine around them") {
  control();
  CHECK(system("exit 3") == 3 << 8);
  CHECK(recorded() == Calls{"before_spawn for_long", "after_spawn made=1"});
  control();
  FILE* f = popen("echo hello", "re");
  REQUIRE(f != nullptr);
  CHECK(recorded() == Calls{"before_spawn close=1", "after_spawn made=1"});
  char line[32] = {};
  CHECK(fgets(line, sizeof line, f) != nullptr);
  CHECK(std::string(line) == "hello\n");
  CHECK(pclose(f) == 0);
  control();
  CHECK(popen("true", "nonsense") == nullptr);
  CHECK(errno == EINVAL);
  CHECK(recorded().back() == "after_spawn made=0");
}

TEST_CASE("ignored signals stay ignored and blocked ones blocked across exec, handlers do not") {
  control();
  const std::string text = output_of([](int fd) {
    dup2(fd, 1);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, [](int) {});
    sigset_t hup;
    sigemptyset(&hup);
    sigaddset(&hup, SIGHUP);
    sigprocmask(SIG_SETMASK, &hup, nullptr);
    execlp("cat", "cat", "/proc/self/status", nullptr);
  });
  CHECK(text.find("SigBlk:\t0000000000000001\nSigIgn:\t0000000000000200\nSigCgt:\t0000000000000000\n") !=
        std::string::npos);
}

TEST_CASE("the end of a process is told, once, however it ends") {
  control();
  const auto told = [](const std::function<void()>& end) {
    return output_of([&](int fd) {
      control().exit_fd = fd;
      end();
    });
  };
  CHECK(told([] { _exit(0); }) == "x");
  CHECK(told([] { _Exit(0); }) == "x");
  CHECK(told([] { quick_exit(0); }) == "x");
  CHECK(told([] { exit(0); }) == "x");
  CHECK(told([] { syscall(231 /* exit_group */, 0); }) == "x");
}

TEST_CASE("sockets still work in atexit functions, and the end is told after them") {
  Connected pair;
  static int fd, out;
  fd = pair.a;
  const std::string text = output_of([](int pipe) {
    control().exit_fd = out = pipe;
    atexit([] {
      if (write(fd, "y", 1) != 1 || write(out, "a", 1) != 1) abort();
    });
    exit(0);
  });
  CHECK(text == "ax");
  char p;
  CHECK(read(pair.b, &p, 1) == 1);
}

TEST_CASE("before privileges go the engine is told") {
  const std::string text = output_of([](int fd) {
    control();
    const gid_t group = 0;
    if (setgid(0) != 0 || setuid(0) != 0 || setegid(0) != 0 || seteuid(0) != 0 || setreuid(0, 0) != 0 ||
        setregid(0, 0) != 0 || setresuid(0, 0, 0) != 0 || setresgid(0, 0, 0) != 0 ||
        (getuid() == 0 && setgroups(1, &group) != 0) || initgroups("root", 0) > 0 ||
        chroot("/nonexistent") == 0) {
      dprintf(fd, "a call failed: %d\n", errno);
    }
    write_calls(fd);
  });
  if (getuid() != 0) return;  // the first call already fails
  std::string expected;
  for (int i = 0; i < 11; ++i) expected += "before_privileges\n";
  CHECK(text == expected);
}

TEST_CASE("daemon makes a child as fork does, with no controlling terminal and null streams") {
  control();
  const std::string text = output_of([](int fd) {
    const pid_t parent = getpid();
    control();
    if (daemon(0, 0) != 0) abort();
    write_calls(fd);
    char directory[100], stream[100] = {};
    if (readlink("/proc/self/fd/1", stream, sizeof stream - 1) < 0) abort();
    dprintf(fd, "%d %s %s %d\n", getpid() != parent, getcwd(directory, sizeof directory), stream,
            getsid(0) == getpid());
    control().exit_fd = -1;
  });
  CHECK(text == "before_fork\nafter_fork child=1\n1 / /dev/null 1\n");
}

TEST_CASE("a fork inside a signal handler at the edge, and a child's own handlers, work") {
  const Connected pair;
  static int status;
  status = -1;
  struct sigaction a {
  }, old{};
  a.sa_handler = [](int) {
    const pid_t pid = fork();
    if (pid == 0) _exit(7);
    waitpid(pid, &status, 0);
  };
  REQUIRE(sigaction(SIGUSR1, &a, &old) == 0);
  FakeControl& c = control();
  c.during = [] { raise(SIGUSR1); };
  c.results = {1};
  char p;
  CHECK(read(pair.a, &p, 1) == 1);
  CHECK(WEXITSTATUS(status) == 7);
  sigaction(SIGUSR1, &old, nullptr);
}
