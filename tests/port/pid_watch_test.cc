#include "stack/port/dpdk/pid_watch.hh"

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>

#include "stack/port/dpdk/claims.hh"
#include "tests/port/process.hh"

using mtcp::stack::dpdk::own_identity;
using mtcp::stack::dpdk::PidWatch;
using mtcp::test::Process;

namespace {

struct Child {
  Child() : process([](Process& parent) {
      parent.tell();
      (void)parent.wait();
    }) {
    REQUIRE(process.wait());
  }
  [[nodiscard]] std::uint64_t identity() const { return static_cast<std::uint64_t>(process.pid()) << 32; }
  Process process;
};

struct Told {
  std::vector<int> open;
  auto function() {
    return [this](int fd, bool opened) { opened ? open.push_back(fd) : static_cast<void>(std::erase(open, fd)); };
  }
};

bool readable(const PidWatch& w) {
  return std::ranges::any_of(w.descriptors(), [](int fd) {
    pollfd p{fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  });
}

}  // namespace

TEST_CASE("the death of a process that is watched is told at once, and until another is watched instead") {
  Told told;
  Child one, two;
  {
    PidWatch w(told.function());
    const std::array both{one.identity(), two.identity()};
    REQUIRE(w.watch(both));
    CHECK(told.open.size() == 2);
    CHECK_FALSE(w.told());
    CHECK_FALSE(readable(w));
    one.process.kill_hard();
    CHECK(w.told());
    CHECK(readable(w));
    REQUIRE(w.watch(std::span(both).last(1)));
    CHECK_FALSE(w.told());
    two.process.kill_without_wait();
    pollfd p{w.descriptors().front(), POLLIN, 0};
    CHECK(poll(&p, 1, 10'000) == 1);
    CHECK(w.told());
  }
  CHECK(told.open.empty());
}

TEST_CASE("who is dead and gone before he is watched is not watched, which is no failure") {
  Child gone;
  const std::array processes{gone.identity(), own_identity(), std::uint64_t{7}};  // 7: no process's
  gone.process.kill_hard();
  PidWatch w({});
  CHECK(w.watch(processes));
  CHECK(w.descriptors().size() == 1);
  CHECK_FALSE(w.told());
}

TEST_CASE("without descriptors nobody is watched, and it says so") {
  Process p([](Process&) {
    PidWatch w({});
    const std::array self{own_identity()};
    const rlimit none{0, 0};
    EXPECT(setrlimit(RLIMIT_NOFILE, &none) == 0);
    EXPECT(!w.watch(self));
    EXPECT(w.descriptors().empty());
    EXPECT(!w.told());
  });
  CHECK(p.join() == 0);
}
