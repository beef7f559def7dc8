// How a stack hears of the deaths of others, and what one has left half done.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>

#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

constexpr Time at(int ms) { return Time{} + milliseconds(ms); }

struct World {
  explicit World(std::size_t stacks, bool told = true) {
    device.tells_of_deaths = told;
    for (std::size_t i = 0; i < stacks; ++i) ports.push_back(device.join(i + 1));
    for (int ms = 1; ms < 200; ms += 30)
      for (std::size_t i = 0; i < stacks; ++i) as(i).service(at(ms));
  }
  ~World() {
    for (std::size_t i = 0; i < ports.size(); ++i) {
      device.process = i + 1;
      ports[i].reset();
    }
  }
  SteeringPort& as(std::size_t i) {
    device.process = i + 1;
    return *ports[i];
  }
  void kill(std::size_t i) { device.kill(std::move(ports[i]), i + 1); }
  // Sleeps, is woken by something that is no packet, and looks.
  void wake(std::size_t i, int ms) {
    (void)as(i).arm();
    as(i).disarm();
    Packet* none[8];
    REQUIRE(as(i).rx(none, 8) == 0);
    as(i).service(at(ms));
  }
  // The descriptor of its FakeWatch is among those that it sleeps on.
  bool is_told(std::size_t i) { return std::ranges::count(as(i).pollable(), 300) != 0; }
  std::uint32_t members() { return device.control().members().size(); }
  FakeDevice device;
  std::vector<std::unique_ptr<SteeringPort>> ports;
};

}  // namespace

TEST_CASE("a stack that is told of deaths asks about few, sleeps long, and reaps at once who has died") {
  World w(8);
  REQUIRE(w.is_told(0));
  w.device.questions = 0;
  for (int ms = 200; ms < 400; ms += 20) w.as(0).service(at(ms));
  CHECK(w.device.questions <= 10);  // one of those that it does not watch, each time
  CHECK(w.as(0).max_sleep() == Duration::max());
  CHECK(w.as(1).max_sleep() == milliseconds(20));  // has no queue so far
  w.kill(2);
  w.kill(3);
  w.wake(0, 401);
  CHECK(w.members() == 6);
  w.device.questions = 0;
  w.wake(0, 402);  // whom to watch has changed
  w.wake(0, 403);
  CHECK(w.device.questions < 8);
  // All that it watches and those after them.
  for (std::size_t i = 0; i < 8; ++i)
    if (w.ports[i] != nullptr && i != 0) w.kill(i);
  for (int ms = 404; ms < 407; ++ms) w.wake(0, ms);
  CHECK(w.members() == 1);
}

TEST_CASE("who is told of deaths and has a queue need not wake up by itself, nor the first when the device's table is as it should be") {
  World w(2);
  w.device.is_card = true;
  w.device.waiting.emplace_back();
  w.device.queue_owner.push_back(0);
  for (int ms = 200; ms < 400; ms += 30)
    for (std::size_t i : {0, 1}) w.as(i).service(at(ms));
  REQUIRE(w.as(1).queues() == 1);
  CHECK(w.as(1).max_sleep() == Duration::max());
  CHECK(w.as(0).max_sleep() == Duration::max());
  const auto table = w.device.table;
  REQUIRE(w.as(0).arm());
  w.as(1).set_serving(true);
  CHECK(w.device.awake.contains(0));
  w.as(0).disarm();
  CHECK(w.as(0).max_sleep() == milliseconds(20));  // it looks after the table
  w.as(0).service(at(420));
  CHECK(w.device.table != table);
  CHECK(w.as(0).max_sleep() == Duration::max());
}

TEST_CASE("who has a queue less than another, because they can't be divided evenly, has its share, and gets what one that dies had") {
  World w(2);
  w.device.is_card = true;
  for (int i = 0; i < 4; ++i) {
    w.device.waiting.emplace_back();
    w.device.queue_owner.push_back(0);
  }
  for (int ms = 200; ms < 400; ms += 30)
    for (std::size_t i : {0, 1}) w.as(i).service(at(ms));
  REQUIRE(w.as(0).queues() + w.as(1).queues() == 5);
  const std::size_t fewer = w.as(0).queues() == 2 ? 0 : 1;
  REQUIRE(w.as(fewer).queues() == 2);
  CHECK(w.as(fewer).max_sleep() == Duration::max());
  w.kill(1 - fewer);
  for (int ms = 430; ms < 600; ms += 30) w.wake(fewer, ms);
  CHECK(w.as(fewer).queues() == 5);
}

TEST_CASE("a death is found by looking where there are no descriptors to be told by, or the dead can't be seen") {
  World w(4, false);
  CHECK(w.as(1).max_sleep() == milliseconds(20));
  w.kill(2);
  w.as(1).service(at(230));
  CHECK(w.members() == 3);

  World few(4);
  REQUIRE(few.is_told(1));
  few.device.watchable = 1;
  few.kill(3);
  few.wake(1, 201);
  few.wake(1, 202);
  CHECK(few.members() == 3);
  CHECK_FALSE(few.is_told(1));
  CHECK(few.as(1).max_sleep() == milliseconds(20));

  World blind(4);
  blind.device.hidden.insert(3);
  blind.kill(2);
  for (int ms = 201; ms < 210; ++ms) blind.wake(1, ms);
  CHECK_FALSE(blind.is_told(1));  // else it would be woken for ever
  blind.device.hidden.clear();
  blind.as(1).service(at(250));
  CHECK(blind.members() == 3);
}

TEST_CASE("whoever sleeps is woken when a dead stack's part is shared out") {
  World w(4);
  REQUIRE(w.as(3).arm());
  w.kill(2);
  w.wake(1, 201);
  CHECK(w.device.awake.contains(w.ports[3]->number()));
  w.as(3).disarm();
}

TEST_CASE("what a stack had announced when it was killed, before it could say so, is received") {
  World w(4);
  ControlBlock& control = w.device.control();
  MessageRing ring(control.ring_memory(w.ports[1]->number(), w.ports[2]->number()), control.frame(), ControlBlock::kRingMessages);
  const std::array<std::byte, 20> bytes{std::byte{77}};
  REQUIRE(ring.write(0, {MessageKind::handover, kHandover, 0, bytes, 1}));
  ring.announce(1);
  std::array<Packet*, 8> received{};
  CHECK(w.as(2).rx(received.data(), received.size()) == 0);
  REQUIRE(w.as(2).arm());
  w.kill(1);
  w.wake(0, 201);
  CHECK(w.device.awake.contains(w.ports[2]->number()));
  w.as(2).disarm();
  REQUIRE(w.as(2).rx(received.data(), received.size()) == 1);
  CHECK(received[0]->data[0] == std::byte{77});
  w.ports[2]->pool().free(received.data(), 1);
  CHECK(w.as(2).rx(received.data(), received.size()) == 0);
}

TEST_CASE("whoever loses patience with the holder of the control block's lock does not take it from that") {
  World w(2);
  w.kill(1);
  ControlBlock& control = w.device.control();
  MessageRing ring(control.ring_memory(0, 1), control.frame(), ControlBlock::kRingMessages);
  const std::array<std::byte, 20> bytes{};
  REQUIRE(ring.write(0, {MessageKind::handover, kHandover, 0, bytes, 1}));
  ring.announce(1);
  w.device.process = 1;
  bool visited = false;
  REQUIRE(control.reap(1, 0, w.device, [&](std::span<const Message>) {  // has the lock
    visited = true;
    w.device.process = 7;
    control.set_serving(0, true, w.device);
    w.device.questions = 0;
    control.set_serving(0, false, w.device);
    CHECK(w.device.questions > 0);  // about the one that still has it
    w.device.process = 1;
  }));
  CHECK(visited);
}
