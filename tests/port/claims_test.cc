#include "stack/port/dpdk/claims.hh"

#include <catch2/catch.hpp>

#include "tests/port/process.hh"

using mtcp::stack::dpdk::Claims;
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
