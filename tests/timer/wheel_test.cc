#include "stack/timer/wheel.hh"

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <vector>

using namespace mtcp::stack;

namespace {
Time at(std::int64_t ms) { return Time(milliseconds(ms)); }
std::vector<TimerNode*> expired(TimerWheel& wheel, Time now) {
  std::vector<TimerNode*> v;
  while (TimerNode* n = wheel.expire(now)) v.push_back(n);
  return v;
}
}  // namespace

TEST_CASE("a timer fires once, not before its time, and not a tick late", "[wheel]") {
  for (std::int64_t delay :
       {1, 2, 40, 200, 255, 256, 257, 1000, 60'000, 65'535, 65'536, 7'200'000, 40'000'000}) {
    TimerWheel wheel(at(1'234'567));
    TimerNode node;
    wheel.arm(node, at(1'234'567 + delay));
    CAPTURE(delay);
    CHECK(node.armed());
    CHECK(expired(wheel, at(1'234'567 + delay - 1)).empty());
    CHECK(expired(wheel, at(1'234'567 + delay)) == std::vector{&node});
    CHECK_FALSE(node.armed());
    CHECK(expired(wheel, at(1'234'567 + 2 * delay)).empty());
  }
}

TEST_CASE("a fraction of a millisecond is rounded up", "[wheel]") {
  TimerWheel wheel(at(100));
  TimerNode node;
  wheel.arm(node, at(105) + microseconds(1));
  CHECK(expired(wheel, at(105) + microseconds(900)).empty());
  CHECK(expired(wheel, at(106)).size() == 1);
}

TEST_CASE("a deadline that has passed fires at the next tick", "[wheel]") {
  TimerWheel wheel(at(100));
  CHECK(expired(wheel, at(500)).empty());
  TimerNode node;
  wheel.arm(node, at(50));
  CHECK(expired(wheel, at(501)).size() == 1);
}

TEST_CASE("cancelled timers do not fire, and can be armed again", "[wheel]") {
  TimerWheel wheel(at(0));
  TimerNode node;
  wheel.arm(node, at(10));
  wheel.cancel(node);
  CHECK(expired(wheel, at(9)).empty());
  wheel.arm(node, at(20));
  CHECK(expired(wheel, at(19)).empty());
  CHECK(expired(wheel, at(20)).size() == 1);
  wheel.arm(node, kNever);
  CHECK_FALSE(node.armed());
}

TEST_CASE("a timer can be postponed and brought forward", "[wheel]") {
  TimerWheel wheel(at(0));
  TimerNode node;
  wheel.arm(node, at(10));
  wheel.arm(node, at(5000));
  CHECK(expired(wheel, at(4999)).empty());
  wheel.arm(node, at(100'000));
  wheel.arm(node, at(5005));
  CHECK(expired(wheel, at(5004)).empty());
  CHECK(expired(wheel, at(5005)).size() == 1);
}

TEST_CASE("a node that is destroyed while armed or due is forgotten", "[wheel]") {
  TimerWheel wheel(at(0));
  auto a = std::make_unique<TimerNode>(), b = std::make_unique<TimerNode>();
  auto far = std::make_unique<TimerNode>();
  wheel.arm(*a, at(10));
  wheel.arm(*b, at(10));
  wheel.arm(*far, at(100'000));
  far.reset();
  TimerNode* first = wheel.expire(at(10));
  (first == a.get() ? b : a).reset();
  CHECK(wheel.expire(at(200'000)) == nullptr);
}

TEST_CASE("next_deadline is never later than the next timer, and kNever without one", "[wheel]") {
  TimerWheel wheel(at(1000));
  CHECK(wheel.next_deadline() == kNever);
  TimerNode node;
  for (std::int64_t delay : {1, 100, 300, 70'000, 20'000'000}) {
    wheel.arm(node, at(1000 + delay));
    CHECK(wheel.next_deadline() <= at(1000 + delay));
    CHECK(wheel.next_deadline() > at(1000));
  }
}

TEST_CASE("sleeping until next_deadline each time reaches every timer in few steps", "[wheel]") {
  TimerWheel wheel(at(0));
  TimerNode node;
  wheel.arm(node, at(7'200'123));
  int steps = 0;
  Time now = at(0);
  while (expired(wheel, now).empty()) {
    REQUIRE(++steps < 10);
    REQUIRE(wheel.next_deadline() > now);
    now = wheel.next_deadline();
  }
  CHECK(now == at(7'200'123));
}

// As a short connection leaves them: its own, which end with it, and those of connections that go on.
TEST_CASE("a timer that is gone, cancelled or postponed ends no sleep", "[wheel]") {
  for (const std::int64_t scale : {1, 40, 10'000}) {
    CAPTURE(scale);
    TimerWheel wheel(at(1000));
    TimerNode cancelled, postponed, last;
    wheel.arm(last, at(1000 + 90 * scale));
    for (int i = 0; i < 10; ++i) {
      TimerNode gone;
      wheel.arm(gone, at(1000 + (2 + i) * scale));
    }
    wheel.arm(cancelled, at(1000 + 20 * scale));
    wheel.cancel(cancelled);
    wheel.arm(postponed, at(1000 + 30 * scale));
    wheel.arm(postponed, at(1000 + 60 * scale));
    // On an upper level a slot stands for more than one tick.
    const Time first = wheel.next_deadline();
    CHECK(first > at(1000 + 55 * scale));
    CHECK(first <= at(1000 + 60 * scale));
    CHECK(expired(wheel, at(1000 + 60 * scale)) == std::vector{&postponed});
    CHECK(expired(wheel, at(1000 + 90 * scale)) == std::vector{&last});
  }
}

TEST_CASE("the search for the next deadline is bounded, and its answer never too late", "[wheel]") {
  TimerWheel wheel(at(0));
  TimerNode last;
  wheel.arm(last, at(200));
  for (int i = 1; i < 200; ++i) {
    TimerNode gone;
    wheel.arm(gone, at(i));
  }
  CHECK(wheel.next_deadline() > at(20));
  CHECK(wheel.next_deadline() <= at(200));
}

TEST_CASE("the wheel agrees with a sorted map through random arming, cancelling and jumps of time",
          "[wheel]") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::int64_t start = random() % 100'000'000;
  TimerWheel wheel(at(start));
  std::deque<TimerNode> nodes(500);
  std::map<TimerNode*, std::int64_t> model;
  std::int64_t now = start;
  std::size_t fired = 0, wrong = 0;
  for (int i = 0; i < 200'000; ++i) {
    TimerNode& n = nodes[random() % nodes.size()];
    const unsigned what = random() % 100;
    if (what < 60) {
      const std::int64_t spans[] = {10, 300, 5000, 100'000, 30'000'000};
      const std::int64_t deadline = now + 1 + static_cast<std::int64_t>(random() % spans[random() % 5]);
      wheel.arm(n, at(deadline));
      model[&n] = deadline;
    } else if (what < 75) {
      wheel.cancel(n);
      model.erase(&n);
    } else {
      const std::int64_t jumps[] = {1, 1, 3, 50, 1000, 200'000};
      now += 1 + static_cast<std::int64_t>(random() % jumps[random() % 6]);
      if (!model.empty()) {
        const auto first = std::min_element(model.begin(), model.end(),
                                            [](auto& a, auto& b) { return a.second < b.second; });
        wrong += wheel.next_deadline() > at(first->second) ? 1 : 0;
      }
      while (TimerNode* e = wheel.expire(at(now))) {
        const auto found = model.find(e);
        wrong += found == model.end() || found->second > now ? 1 : 0;
        if (found != model.end()) model.erase(found);
        ++fired;
      }
      for (auto& [node, deadline] : model) wrong += deadline <= now ? 1 : 0;
    }
  }
  CHECK(wrong == 0);
  CHECK(fired > 1000);
}
