// The number that stands for {worker}: who gets which, and when it is free again.
#include "intercept/device/worker_number.hh"

#include <sys/stat.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/intercept/bench.hh"
#include "tests/limit.hh"

using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

// A port string that no other test program uses at the same time.
std::string unique_port(const char* more = "") {
  return "net_memif0,role=client,socket=/mtcp-number-" + std::to_string(::getpid()) + "-{worker}" + more;
}

// Claims one; closed with its owner.
struct Claimed : WorkerNumber {
  explicit Claimed(FakeKernel& k, const std::string& port, std::uint32_t count = 3)
      : kernel(&k), error(claim(k, port, count)) {}
  Claimed(const Claimed&) = delete;
  Claimed& operator=(const Claimed&) = delete;
  ~Claimed() { drop(); }
  void drop() {
    if (held()) kernel->close(fd);
    fd = -1;
  }
  FakeKernel* kernel;
  int error;
};

// What Process asked for when it opened its device: always in vain.
std::vector<mtcp::stack::DeviceConfig> asked;
std::unique_ptr<mtcp::stack::Device> refuse(const mtcp::stack::DeviceConfig& config, std::string& message) {
  asked.push_back(config);
  message = "not in this test";
  return nullptr;
}

Options numbered(const std::string& port, std::uint32_t count) {
  Options o = Bench::default_options();
  o.device.port = port;
  o.device.queues = count;
  o.log_level = LogLevel::none;
  return o;
}

int open_descriptors() {
  int n = 0;
  for (int fd = 0; fd < 4096; ++fd) n += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE("{worker} is replaced wherever it stands") {
  CHECK(with_worker_number("net_memif0,socket=/a-{worker},id={worker}", 7) == "net_memif0,socket=/a-7,id=7");
  CHECK(with_worker_number("{worker}{worker}", 12) == "1212");
  CHECK(with_worker_number("net_memif0,socket=/worker", 7) == "net_memif0,socket=/worker");
}

TEST_CASE("everybody gets the lowest number that is free, and nobody more than there are") {
  FakeKernel k;
  const std::string port = unique_port();
  Claimed a(k, port), b(k, port), c(k, port);
  CHECK(a.number == 0);
  CHECK(b.number == 1);
  CHECK(c.number == 2);
  Claimed d(k, port);
  CHECK(d.error == -EBUSY);
  CHECK_FALSE(d.held());
  b.drop();
  Claimed e(k, port);
  CHECK(e.error == 0);
  CHECK(e.number == 1);
  CHECK((::fcntl(e.fd, F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("another port string has numbers of its own, however long and alike the two are") {
  FakeKernel k;
  const std::string same(200, 'x');
  Claimed a(k, unique_port((same + "1").c_str())), b(k, unique_port((same + "2").c_str()));
  CHECK(a.error == 0);
  CHECK(b.error == 0);
  CHECK(a.number == 0);
  CHECK(b.number == 0);
  Claimed again(k, unique_port((same + "1").c_str()));
  CHECK(again.number == 1);
}

TEST_CASE("the number of a process that was killed is free before anybody can know of its death") {
  FakeKernel k;
  const std::string port = unique_port();
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const Claimed mine(k, port);
    const char n = static_cast<char>(mine.number);
    if (::write(ready[1], &n, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char n = 9;
  REQUIRE(::read(ready[0], &n, 1) == 1);
  CHECK(n == 0);
  Claimed second(k, port);
  CHECK(second.number == 1);
  REQUIRE(::kill(child, SIGKILL) == 0);
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) ==
          0);  // a zombie holds nothing
  Claimed successor(k, port);
  CHECK(successor.number == 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_CASE("what the kernel refuses is told as it is, and nothing stays open") {
  FakeKernel k;
  const int before = open_descriptors();
  const int free = ::dup(0);
  ::close(free);
  // None at all, and one for the directory only.
  for (const int more : {0, 1}) {
    const auto limit = static_cast<rlim_t>(free + more);
    CHECK(mtcp::test::with_limit(RLIMIT_NOFILE, limit, [&] { return Claimed(k, unique_port()).error; }) == -EMFILE);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("another user who has taken the directory's name keeps nobody from a number") {
  if (::geteuid() != 0) return;
  constexpr uid_t kSomebody = 54321;
  const std::string squatted = "/tmp/mtcp-" + std::to_string(kSomebody);
  REQUIRE(::mkdir(squatted.c_str(), 0777) == 0);  // root's, and there may be a link as well
  REQUIRE(::symlink("/", (squatted + ".1").c_str()) == 0);
  const std::string port = unique_port();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (::setresuid(kSomebody, kSomebody, kSomebody) != 0) ::_exit(9);
    FakeKernel k;
    Claimed a(k, port), b(k, port);
    struct stat s {};
    const bool right = a.error == 0 && a.number == 0 && b.error == 0 && b.number == 1 &&
                       ::stat((squatted + ".2").c_str(), &s) == 0 && s.st_uid == kSomebody && (s.st_mode & 077) == 0;
    ::_exit(right ? 0 : 1);
  }
  int status = 1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  std::filesystem::remove_all(squatted);
  std::filesystem::remove(squatted + ".1");
  std::filesystem::remove_all(squatted + ".2");
}

TEST_CASE("a process opens the device of its number, with the one queue that it needs") {
  asked.clear();
  const std::string port = unique_port();
  Bench b(numbered(port, 2));
  b->open_device = refuse;
  Claimed other(b.kernel, port, 2);
  CHECK(b.connect(b.tcp(), "10.77.0.9", 80) == -ENETDOWN);
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].port == with_worker_number(port, 1));
  CHECK(asked[0].queues == 1);
  // It has no device, so it keeps no other process from having one.
  Claimed next(b.kernel, port, 2);
  CHECK(next.number == 1);
}

TEST_CASE("a process that finds all numbers taken opens nothing, and tries again later") {
  asked.clear();
  const std::string port = unique_port();
  Bench b(numbered(port, 1));
  b->open_device = refuse;
  Claimed other(b.kernel, port, 1);
  const int fd = b.tcp();
  CHECK(b.connect(fd, "10.77.0.9", 80) == -EADDRNOTAVAIL);
  CHECK(asked.empty());
  other.drop();
  b->next_attempt = {};
  CHECK(b.connect(fd, "10.77.0.9", 80) == -ENETDOWN);
  CHECK(asked.size() == 1);
}

TEST_CASE("accept waits while all numbers are taken") {
  asked.clear();
  const std::string port = unique_port();
  Bench b(numbered(port, 1));
  b->open_device = refuse;
  Claimed other(b.kernel, port, 1);
  CHECK(b->accept4(b.listener(SOCK_NONBLOCK), nullptr, nullptr, 0) == -EAGAIN);
  const int fd = b.listener();
  const timeval limit{.tv_sec = 0, .tv_usec = 30'000};
  REQUIRE(b->setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  const int closes = b.kernel.calls["close"];
  CHECK(b->accept4(fd, nullptr, nullptr, 0) == -EAGAIN);
  CHECK(b.kernel.calls["close"] > closes + 1);  // it has tried again
  CHECK(asked.empty());
}

TEST_CASE(
    "an application that closes all descriptors does not lose its number; a forked child does not keep it") {
  const std::string port = unique_port();
  Bench b(numbered(port, 1));
  // As after a device has been opened.
  REQUIRE(b->worker_number.claim(b.kernel, port, 1) == 0);
  b->worker_number.fd = b->keep_high(b->worker_number.fd);
  const int number = b->worker_number.fd;
  CHECK(b.table.kind(number) == FdKind::reserved);
  CHECK(b->close_range(static_cast<unsigned>(number), static_cast<unsigned>(number), 0) == 0);
  CHECK(Claimed(b.kernel, port, 1).error == -EBUSY);
  b->before_fork();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  b->after_fork(child == 0);
  if (child == 0) ::_exit(::fcntl(number, F_GETFD) < 0 && !b->worker_number.held() ? 0 : 1);
  int status = 1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(Claimed(b.kernel, port, 1).error == -EBUSY);
  b->release_worker_number();
  CHECK(Claimed(b.kernel, port, 1).error == 0);
}
