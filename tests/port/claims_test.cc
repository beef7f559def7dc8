#include "stack/port/dpdk/claims.hh"

#include <sched.h>
#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "tests/port/process.hh"

using mtcp::stack::dpdk::Claims;
using mtcp::stack::dpdk::is_alive;
using mtcp::stack::dpdk::own_identity;
using mtcp::stack::dpdk::show_life_on;
using mtcp::test::Process;
using Outcome = Claims::Outcome;

TEST_CASE("a queue is claimed once, and again after its release") {
  const auto claims = Claims::create(2);
  REQUIRE(claims != nullptr);
  CHECK_FALSE(claims->any_alive());
  CHECK(claims->claim(1) == Outcome::free);
  CHECK(claims->claim(1) == Outcome::taken);
  CHECK(claims->claim(0) == Outcome::free);
  CHECK(claims->claim(2) == Outcome::taken);  // there is none
  claims->release(1);
  CHECK(claims->claim(1) == Outcome::free);
}

TEST_CASE("a queue of another process is taken while that lives, and inherited once it is dead") {
  const auto claims = Claims::create(1);
  Process owner([&](Process& parent) {
    EXPECT(claims->claim(0) == Outcome::free);
    claims->received(0) = 17;
    parent.tell();
    (void)parent.wait();
  });
  REQUIRE(owner.wait());
  CHECK(claims->any_alive());
  CHECK(claims->claim(0) == Outcome::taken);
  SECTION("collected by its parent") { owner.kill_hard(); }
  SECTION("a zombie") {
    owner.kill_without_wait();
    siginfo_t info;
    REQUIRE(waitid(P_PID, static_cast<id_t>(owner.pid()), &info, WEXITED | WNOWAIT) == 0);
  }
  CHECK_FALSE(claims->any_alive());
  CHECK(claims->claim(0) == Outcome::inherited);
  CHECK(claims->received(0) == 17);
  CHECK(claims->claim(0) == Outcome::taken);
}

TEST_CASE("of many processes that claim a queue at the same time one gets it") {
  const auto claims = Claims::create(1);
  std::vector<std::unique_ptr<Process>> racers;
  for (int i = 0; i < 8; ++i) {
    racers.push_back(std::make_unique<Process>([&](Process& parent) {
      (void)parent.wait();
      const bool got = claims->claim(0) == Outcome::free;
      parent.tell();
      (void)parent.wait();  // stay alive until all have tried
      _exit(got ? 10 : 0);
    }));
  }
  for (const auto& r : racers) r->tell();
  for (const auto& r : racers) REQUIRE(r->wait());
  int winners = 0;
  for (const auto& r : racers) {
    r->tell();
    winners += r->join() == 10 ? 1 : 0;
  }
  CHECK(winners == 1);
}

namespace {

// In which processes show that they live, as in a device's memory.
struct LifeFile {
  LifeFile() { show_life_on(fd); }
  ~LifeFile() {
    show_life_on(-1);
    close(fd);
  }
  int fd = memfd_create("life", MFD_CLOEXEC);
};

std::uint64_t identity_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  return static_cast<std::uint64_t>(pid) << 32 | static_cast<std::uint32_t>(std::stoul(field));
}

}  // namespace

TEST_CASE("a process in another PID namespace is alive until it has ended, on both sides") {
  if (geteuid() != 0) {
    WARN("needs root: skipped");
    return;
  }
  const LifeFile file;
  const auto claims = Claims::create(2);
  REQUIRE(claims->claim(1) == Outcome::free);
  auto* identity = static_cast<std::uint64_t*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Process outer([&](Process& parent) {
    EXPECT(unshare(CLONE_NEWPID) == 0);
    Process inner([&](Process& between) {
      *identity = own_identity();
      EXPECT(getpid() == 1 && claims->claim(0) == Outcome::free);
      EXPECT(claims->claim(1) == Outcome::taken);  // of one that has no number here
      between.tell();
      (void)between.wait();
    });
    EXPECT(inner.wait());
    parent.tell();
    (void)parent.wait();
    inner.kill_hard();
    parent.tell();
    (void)parent.wait();
  });
  REQUIRE(outer.wait());
  CHECK(is_alive(*identity));
  CHECK(claims->claim(0) == Outcome::taken);
  outer.tell();
  REQUIRE(outer.wait());
  CHECK_FALSE(is_alive(*identity));
  CHECK(claims->claim(0) == Outcome::inherited);
  munmap(identity, 4096);
}

TEST_CASE("two processes with one number and one start, in two PID namespaces, are two") {
  const LifeFile file;
  Process child([&](Process& parent) {
    EXPECT(parent.wait());
    const std::uint64_t plain = identity_of(getpid()), own = own_identity();
    EXPECT(own != plain && own >> 32 == plain >> 32 && is_alive(own) && is_alive(plain));
  });
  struct flock lock{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = static_cast<off_t>(identity_of(child.pid())), .l_len = 1, .l_pid = 0};
  REQUIRE(fcntl(file.fd, F_SETLK, &lock) == 0);
  child.tell();
  CHECK(child.join() == 0);
}
