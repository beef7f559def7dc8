// When a thread gives its CPU away before a sleep (intercept/waiting/yielding.hh).
#include <catch2/catch.hpp>

#include "intercept/waiting/yielding.hh"

using namespace mtcp;
using namespace mtcp::intercept;

namespace {

using stack::microseconds, stack::milliseconds;

// A stack on a clock of its own.
struct Waits {
  stack::Time now = stack::Time{} + stack::seconds(1000);
  Yielding yielding;
  // What has come is handled, nothing else is there: a sleep would be next.
  bool would_yield() {
    yielding.progressed();
    return yielding.due(now);
  }
  // The same, and a yield that takes so long; the next step says that it has found something. Whether there was one.
  bool yields(stack::Duration takes = microseconds(20)) {
    if (!would_yield()) return false;
    const stack::Time before = now;
    now += takes;
    yielding.yielded(before, now);
    return true;
  }
  bool yields_in_vain(stack::Duration takes = microseconds(20)) {
    const bool result = yields(takes);
    REQUIRE(!yielding.due(now));
    return result;
  }
  // How long nothing yields from now on, in steps of a millisecond.
  stack::Duration pause() {
    const stack::Time before = now;
    while (!would_yield()) now += milliseconds(1);
    return now - before;
  }
};

}  // namespace

TEST_CASE("yields that find something go on, however long they take", "[yielding]") {
  Waits waits;
  for (int i = 0; i < 1000; ++i) REQUIRE(waits.yields(i % 2 == 0 ? microseconds(20) : milliseconds(4)));
}

TEST_CASE("a yield follows what has come since the last one, and only that", "[yielding]") {
  Waits waits;
  CHECK(!waits.yielding.due(waits.now));
  REQUIRE(waits.yields());
  CHECK(!waits.yielding.due(waits.now));
  CHECK(waits.would_yield());
}

TEST_CASE("no yield for 20 ms after a long one that found nothing, twice as long each time, 1.28 s at most", "[yielding]") {
  Waits waits;
  for (const int ms : {20, 40, 80, 160, 320, 640, 1280, 1280}) {
    REQUIRE(waits.yields_in_vain(milliseconds(4)));
    CHECK(waits.pause() == milliseconds(ms));
    REQUIRE(waits.yields(milliseconds(4)));  // one that finds something is no proof
  }
}

TEST_CASE("no yield for a while after 16 short ones in a row that found nothing", "[yielding]") {
  Waits waits;
  for (int i = 0; i < 15; ++i) REQUIRE(waits.yields_in_vain());
  REQUIRE(waits.yields());
  for (int i = 0; i < 16; ++i) REQUIRE(waits.yields_in_vain());
  CHECK(waits.pause() == milliseconds(20));
  for (int i = 0; i < 16; ++i) REQUIRE(waits.yields_in_vain());
  CHECK(waits.pause() == milliseconds(40));
}

TEST_CASE("a pause is short again once 64 yields have paid since the last one", "[yielding]") {
  Waits waits;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(waits.yields_in_vain(milliseconds(4)));
    (void)waits.pause();
  }
  for (int i = 0; i < 63; ++i) REQUIRE(waits.yields());
  REQUIRE(waits.yields_in_vain(milliseconds(4)));
  CHECK(waits.pause() == milliseconds(160));
  for (int i = 0; i < 64; ++i) {
    REQUIRE(waits.yields());
    REQUIRE(waits.yields_in_vain());
  }
  REQUIRE(waits.yields_in_vain(milliseconds(4)));
  CHECK(waits.pause() == milliseconds(20));
}
