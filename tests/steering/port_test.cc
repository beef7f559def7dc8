#include <catch2/catch.hpp>
#include <cstring>
#include <map>

#include "tests/steering/fake_device.hh"

using namespace mtcp::test;

namespace {

constexpr Time at(int ms) { return Time{} + milliseconds(ms); }

struct World {
  explicit World(std::size_t stacks, std::uint32_t queues = 1, std::uint32_t slots = 16) : device(queues, slots) {
    for (std::size_t i = 0; i < stacks; ++i) ports.push_back(device.join(i + 1));
    settle(1);
  }
  ~World() {
    for (std::size_t i = 0; i < ports.size(); ++i) {
      device.process = i + 1;
      ports[i].reset();
    }
  }
  void settle(int ms) {
    for (int round = 0; round < 3; ++round, ms += 25)
      for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i] == nullptr) continue;
        device.process = i + 1;
        ports[i]->service(at(ms));
      }
  }
  // What stack `i` receives just now; the packets go back at once.
  std::size_t receive(std::size_t i) {
    device.process = i + 1;
    std::array<Packet*, 32> packets;
    const std::size_t n = ports[i]->rx(packets.data(), packets.size());
    ports[i]->pool().free(packets.data(), n);
    return n;
  }
  void send(std::size_t i, const Frame& f) {
    device.process = i + 1;
    Packet* p = nullptr;
    REQUIRE(ports[i]->pool().alloc(&p, 1) == 1);
    std::copy(f.begin(), f.end(), p->data);
    p->len = static_cast<std::uint32_t>(f.size());
    REQUIRE(ports[i]->tx(&p, 1) == 1);
  }
  std::size_t owner(const FlowKey& key) {
    for (std::size_t i = 0; i < ports.size(); ++i)
      if (ports[i] != nullptr && ports[i]->may_open(key)) return i;
    return SIZE_MAX;
  }
  // As TCP does when the table has changed.
  void publish(std::size_t i) {
    device.process = i + 1;
    ports[i]->service(at(1000));
    if (ports[i]->must_publish()) ports[i]->all_published();
    CHECK_FALSE(ports[i]->must_publish());
  }
  FakeDevice device;
  std::vector<std::unique_ptr<SteeringPort>> ports;
};

}  // namespace

TEST_CASE("a stack of its own has all queues and takes everything as it comes", "[steering]") {
  World w(1, 4);
  CHECK(w.ports[0]->queues() == 4);
  CHECK(w.ports[0]->max_sleep() == Duration::max());
  for (auto& q : w.device.waiting) q.push_back(tcp_frame(7, 1));
  CHECK(w.receive(0) == 4);
  CHECK(w.ports[0]->traffic().sent == 0);
}

TEST_CASE("the hashes that a device tells are compared with ours, as long as it may be news", "[steering]") {
  World w(1);
  const FlowHash hash(FlowHash::make_key(w.device.control().secrets()));
  for (std::uint16_t i = 0; i < 30; ++i) {
    w.device.waiting[0].push_back(tcp_frame(7, i));
    w.device.hashes.push_back(hash.of(flow(7, i)) + (i < 10 ? 1 : 0));
  }
  w.receive(0);
  Steering::Share share = w.ports[0]->share();
  CHECK(share.hash_agrees == 20);
  CHECK(share.hash_differs == 10);
  w.device.waiting[0].push_back(tcp_frame(7, 1));  // it tells none
  w.receive(0);
  for (int i = 0; i < 2000; ++i) {
    w.device.waiting[0].push_back(tcp_frame(7, 1));
    w.device.hashes.push_back(hash.of(flow(7, 1)));
    w.receive(0);
  }
  share = w.ports[0]->share();
  CHECK(share.hash_differs == 10);
  CHECK(share.hash_agrees == 990);
}

TEST_CASE("queues are divided; a stack without one sends and receives by messages", "[steering]") {
  World w(3, 2);
  CHECK(w.ports[0]->queues() == 1);
  CHECK(w.ports[1]->queues() == 1);
  CHECK(w.ports[2]->queues() == 0);
  const Frame f = tcp_frame(9, 9);
  w.send(2, f);
  CHECK(w.device.sent.empty());
  CHECK(w.receive(0) + w.receive(1) == 0);
  REQUIRE(w.device.sent.size() == 1);
  CHECK(w.device.sent[0] == f);
}

TEST_CASE("what a stack wants sent is sent though the one that it asked has left and its queue changes hands, in order", "[steering]") {
  const bool one_finds_it = GENERATE(false, true);  // and another one gets the queue
  World w(3, 1);
  REQUIRE(w.ports[0]->queues() == 1);
  for (std::uint16_t i = 1; i <= 3; ++i) w.send(2, tcp_frame(9, i));
  w.device.process = 1;
  w.ports[0].reset();
  REQUIRE(w.device.sent.empty());
  if (one_finds_it) {
    w.device.queue_owner[0] = 99;
    w.device.process = 3;
    w.ports[2]->service(at(500));
    w.device.queue_owner[0] = 0;
  }
  w.device.process = 2;
  w.ports[1]->service(at(501));
  REQUIRE(w.ports[1]->queues() == 1);
  w.settle(600);
  (void)(w.receive(1) + w.receive(2));
  REQUIRE(w.device.sent.size() == 3);
  for (std::uint16_t i = 1; i <= 3; ++i) CHECK(w.device.sent[i - 1U] == tcp_frame(9, i));
  for (const std::size_t i : {1U, 2U}) {
    CHECK(w.ports[i]->traffic().lost == 0);
    CHECK(w.ports[i]->pool().available() == w.ports[i]->pool().capacity());
  }
}

TEST_CASE("every flow reaches its owner from whatever queue, in order, and the share is fair", "[steering]") {
  World w(4, 4);
  std::map<std::size_t, int> flows;
  for (std::uint16_t port = 1; port <= 1000; ++port) {
    const std::size_t owner = w.owner(flow(7, port));
    REQUIRE(owner < 4);
    ++flows[owner];
    w.device.waiting[port % 4].push_back(tcp_frame(7, port));
    w.device.waiting[port % 4].push_back(tcp_frame(7, port));
    std::array<std::size_t, 4> got{};
    for (int round = 0; round < 2; ++round)
      for (std::size_t i = 0; i < 4; ++i) got[i] += w.receive(i);
    for (std::size_t i = 0; i < 4; ++i) REQUIRE(got[i] == (i == owner ? 2 : 0));
  }
  double sum = 0, squares = 0;
  for (const auto& [stack, n] : flows) sum += n, squares += double(n) * n;
  CHECK(sum * sum / (4 * squares) >= 0.95);  // Jain's index
  for (auto& port : w.ports) CHECK(port->pool().available() == port->pool().capacity());
}

TEST_CASE("a frame for a sleeping stack wakes it, once", "[steering]") {
  World w(2);
  std::uint16_t port = 1;
  while (w.owner(flow(7, port)) != 1) ++port;
  w.device.process = 2;
  (void)w.receive(1);
  REQUIRE(w.ports[1]->arm());
  w.device.waiting[0].push_back(tcp_frame(7, port));
  CHECK(w.receive(0) == 0);
  CHECK(w.device.awake.contains(1));
  w.device.process = 2;
  w.ports[1]->disarm();
  CHECK(w.device.awake.empty());
  CHECK(w.receive(1) == 1);
  // A message that comes between the last look and the sleep keeps it awake.
  w.device.waiting[0].push_back(tcp_frame(7, port));
  (void)w.receive(0);
  CHECK_FALSE(w.ports[1]->arm());
  CHECK(w.device.awake.empty());
}

TEST_CASE("an unknown flow's home says that it is nobody's: one look-up, and nobody else is asked", "[steering]") {
  World w(4);
  for (std::size_t i = 0; i < 4; ++i) w.publish(i);
  const FlowKey key = flow(7, 5);
  const std::size_t home = w.owner(key);
  w.device.waiting[0].push_back(tcp_frame(7, 5));
  for (std::size_t round = 0; round < 2; ++round)
    for (std::size_t i = 0; i < 4; ++i) {
      w.device.process = i + 1;
      Packet* p = nullptr;
      if (w.ports[i]->rx(&p, 1) == 0) continue;
      CHECK(i == home);
      p->pull(34);  // as TCP has it
      CHECK_FALSE(w.ports[i]->forward_unknown(p, key, false, Time{}));
      w.ports[i]->pool().free(&p, 1);
    }
}

TEST_CASE("a flow that the directory has goes to its owner, with one forward", "[steering]") {
  World w(4);
  const FlowKey key = flow(7, 5);
  const std::size_t home = w.owner(key), owner = (home + 1) % 4;
  REQUIRE(w.ports[owner]->publish(key, Steering::FlowKind::connection));
  CHECK_FALSE(w.ports[home]->publish(key, Steering::FlowKind::connection));
  w.device.waiting[0].push_back(tcp_frame(7, 5));
  Packet* p = nullptr;
  for (std::size_t i = 0; i < 4; ++i) {
    w.device.process = i + 1;
    if (i != home && w.ports[i]->queues() > 0) CHECK(w.ports[i]->rx(&p, 1) == 0);
  }
  REQUIRE(w.ports[home]->rx(&p, 1) == 1);
  REQUIRE(w.ports[home]->forward_unknown(p, key, false, Time{}));
  w.ports[home]->announce();
  REQUIRE(w.ports[owner]->rx(&p, 1) == 1);
  CHECK((p->flags & (kNotHome | kAsked)) == (kNotHome | kAsked));
  // It has just ended there.
  w.ports[owner]->withdraw(key);
  for (std::size_t i = 0; i < 4; ++i) w.publish(i);
  CHECK_FALSE(w.ports[owner]->forward_unknown(p, key, false, Time{}));
  w.ports[owner]->pool().free(&p, 1);
}

TEST_CASE("segments that are passed on in one burst wake their stack once", "[steering]") {
  World w(2);
  for (std::size_t i = 0; i < 2; ++i) w.publish(i);
  constexpr std::size_t kHome = 0, kOwner = 1, kSegments = 3;
  std::vector<FlowKey> keys;
  for (std::uint16_t port = 1; keys.size() < kSegments; ++port) {
    if (w.owner(flow(7, port)) != kHome) continue;
    keys.push_back(flow(7, port));
    w.device.waiting[0].push_back(tcp_frame(7, port));
    w.device.process = kOwner + 1;
    REQUIRE(w.ports[kOwner]->publish(keys.back(), Steering::FlowKind::connection));
  }
  std::array<Packet*, 8> packets{};
  REQUIRE(w.ports[kOwner]->rx(packets.data(), packets.size()) == 0);  // who may have the queue
  w.device.process = kHome + 1;
  REQUIRE(w.ports[kHome]->rx(packets.data(), packets.size()) == kSegments);
  w.device.process = kOwner + 1;
  REQUIRE(w.ports[kOwner]->arm());
  w.device.process = kHome + 1;
  const int before = w.device.wakes;
  for (std::size_t i = 0; i < kSegments; ++i) REQUIRE(w.ports[kHome]->forward_unknown(packets[i], keys[i], false, Time{}));
  CHECK(w.device.wakes == before);
  w.ports[kHome]->announce();
  CHECK(w.device.wakes == before + 1);
  CHECK(w.receive(kOwner) == kSegments);
}

TEST_CASE("a stack that ends passes on what is of one connection as a whole, or leaves it to wait as a whole", "[steering]") {
  World w(3);
  const std::array<std::byte, 40> bytes{};
  const std::vector<std::span<const std::byte>> messages(3, std::span(bytes));
  const FlowKey key = flow(7, 1);
  const Endpoint there{key.local, key.local_port};
  w.ports[1]->note_listener(0, there, false, Listening::yes);
  w.device.process = 1;
  REQUIRE(w.ports[0]->migrate_away(key, messages, false));
  // Whom it was sent to ends as well, and who has the listener now has room for one message only.
  w.ports[1]->note_listener(0, there, false, Listening::no);
  w.ports[2]->note_listener(0, there, false, Listening::yes);
  w.device.process = 2;
  w.ports[1]->set_closing(true);
  const std::vector<std::span<const std::byte>> many(ControlBlock::kRingMessages - 1, std::span(bytes));
  REQUIRE(w.ports[1]->migrate_away(flow(7, 2), many, false));
  CHECK(w.receive(1) == 0);
  CHECK(w.device.control().unclaimed(there));
  CHECK(w.receive(2) > 0);
}

TEST_CASE("a segment that is faster than the message which describes its flow waits for that, and not for ever", "[steering]") {
  World w(2);
  for (std::size_t i = 0; i < 2; ++i) w.publish(i);
  const FlowKey key = flow(7, 5);
  const std::size_t home = w.owner(key);
  Directory& directory = w.device.control().directory();
  directory.set(directory.hash(key), {Directory::State::in_transit, w.ports[home]->number()});
  w.device.waiting[0].push_back(tcp_frame(7, 5));
  Packet* p = nullptr;
  for (int ms = 0; ms <= 1000; ms += 100) {
    for (std::size_t i = 0; i < 2; ++i) {
      w.device.process = i + 1;
      w.ports[i]->service(at(5000 + ms));
      if (w.ports[i]->rx(&p, 1) == 0) continue;
      REQUIRE(i == home);
      CHECK(p->len == 54);
      p->pull(34);
      CHECK(w.ports[home]->forward_unknown(p, key, false, at(5000 + ms)) == (ms < 1000));
    }
  }
  w.ports[home]->pool().free(&p, 1);
  CHECK(directory.find(directory.hash(key)).state == Directory::State::none);
}

TEST_CASE("after a death its queue is adopted, its flows are told, its entries have new owners", "[steering]") {
  World w(2, 2);
  w.device.process = 2;
  w.ports[1]->note_flow(3, flow(7, 77));
  w.ports[1]->note_flow(4, flow(7, 78));
  w.ports[1]->forget_flow(4);
  w.device.kill(std::move(w.ports[1]), 2);
  w.device.waiting[0].push_back(tcp_frame(7, 1));
  w.device.waiting[1].push_back(tcp_frame(7, 2));
  w.settle(100);
  CHECK(w.ports[0]->queues() == 2);
  CHECK(w.receive(0) == 2);
  FlowKey key;
  std::uint32_t number = 0;
  REQUIRE(w.ports[0]->next_orphan(key, number));
  CHECK(key == flow(7, 77));
  w.ports[0]->orphan_told(number);
  CHECK_FALSE(w.ports[0]->next_orphan(key, number));
}

TEST_CASE("one of many stacks that alone has turns finds all dead ones: its neighbours at once, the others in turn", "[steering]") {
  World w(40, 1, 64);
  auto round = [&w, ms = 200]() mutable {
    w.device.process = 1;
    w.ports[0]->service(at(ms += 20));
    return w.device.control().members().size();
  };
  CHECK(round() == 40);
  w.device.kill(std::move(w.ports[5]), 6);
  CHECK(round() == 39);
  w.device.kill(std::move(w.ports[30]), 31);
  std::size_t rounds = 1;
  while (round() != 38) REQUIRE(++rounds <= 10);
  // All the next ones: whoever comes after them is looked at as well.
  for (std::size_t i = 1; i < 39; ++i)
    if (w.ports[i] != nullptr) w.device.kill(std::move(w.ports[i]), i + 1);
  CHECK(round() == 2);
}

TEST_CASE("migration of one that ends: to a stack that accepts or has the listener, all messages or none", "[steering]") {
  World w(3);
  const std::array<std::byte, 40> bytes{};
  const std::array<std::span<const std::byte>, 2> messages{std::span(bytes), std::span(bytes).first(7)};
  w.device.process = 1;
  const FlowKey key = flow(7, 1);
  const Endpoint there{key.local, key.local_port}, elsewhere{key.local, 81};
  CHECK_FALSE(w.ports[0]->migrate_away(key, messages, false));
  w.ports[1]->note_listener(0, elsewhere, false, Listening::accepting);
  w.ports[2]->note_listener(0, there, false, Listening::left);
  CHECK_FALSE(w.ports[0]->migrate_away(key, messages, false));
  CHECK_FALSE(w.ports[0]->others_listen(there));
  w.ports[2]->note_listener(0, there, false, Listening::yes);
  CHECK(w.ports[0]->migrate_away(key, messages, false));
  Directory& directory = w.device.control().directory();
  CHECK(directory.find(directory.hash(key)) == Directory::Entry{Directory::State::in_transit, w.ports[2]->number()});
  w.device.process = 3;
  std::array<Packet*, 4> got;
  REQUIRE(w.ports[2]->rx(got.data(), 4) == 2);
  CHECK((got[0]->flags & kHandover) != 0);
  CHECK(got[0]->len == 40);
  CHECK(got[1]->len == 7);
  w.ports[2]->pool().free(got.data(), 2);
  const std::vector<std::span<const std::byte>> too_many(ControlBlock::kRingMessages + 1, std::span(bytes));
  CHECK_FALSE(w.ports[0]->migrate_away(key, too_many, false));
  CHECK(w.receive(1) == 0);
  CHECK(w.receive(2) == 0);
}

TEST_CASE("an offer goes to those who accept, and they ask for it; so does who begins to accept", "[steering]") {
  World w(3);
  const Endpoint there{IpAddress::v4(10, 0, 0, 1), 80};
  const auto asked = [&] {
    w.device.process = 1;
    Packet* p = nullptr;
    if (w.ports[0]->rx(&p, 1) == 0) return UINT32_MAX;
    CHECK((p->flags & kPull) != 0);
    Endpoint for_what;
    REQUIRE(p->len == sizeof for_what);
    std::memcpy(&for_what, p->data, sizeof for_what);
    CHECK(for_what == there);
    const std::uint32_t by = p->flow_hash;
    w.ports[0]->pool().free(&p, 1);
    return by;
  };
  w.ports[1]->note_listener(0, there, false, Listening::yes);
  w.ports[0]->offer(there);
  w.ports[0]->set_offering(true);
  CHECK(w.receive(1) + w.receive(2) == 0);
  CHECK(asked() == UINT32_MAX);
  w.device.process = 2;
  w.ports[1]->note_listener(0, there, false, Listening::accepting);
  CHECK(asked() == 1);
  w.ports[0]->offer(there);
  CHECK(w.receive(1) + w.receive(2) == 0);
  CHECK(asked() == 1);
  CHECK(asked() == UINT32_MAX);
}

TEST_CASE("ports for active opens: every flow has one opener, and every stack has some", "[steering]") {
  World w(4);
  w.device.process = 1;
  w.ports[0]->set_serving(true);
  w.device.process = 2;
  w.ports[1]->set_serving(true);
  for (std::size_t i = 0; i < 4; ++i) (void)w.receive(i);
  std::array<int, 4> usable{};
  for (std::uint16_t port = 32768; port < 34768; ++port) {
    FlowKey key = flow(7, 443);
    key.local_port = port;
    int openers = 0;
    for (std::size_t i = 0; i < 4; ++i)
      if (w.ports[i]->may_open(key)) ++usable[i], ++openers;
    REQUIRE(openers == 1);
  }
  for (const int n : usable) CHECK(n > 100);
}

TEST_CASE("the last of many stacks is refused, and one that left makes room", "[steering]") {
  const std::uint32_t slots = GENERATE(16u, 33u, kMaxStacks);
  World w(slots, 1, slots);
  CHECK(w.device.join(99) == nullptr);
  w.device.process = 5;
  w.ports[4].reset();
  auto next = w.device.join(99);
  REQUIRE(next != nullptr);
  CHECK(next->number() == 4);
  w.device.dead.insert(1);
  auto successor = w.device.join(100);
  REQUIRE(successor != nullptr);
  w.device.process = 99;
  next.reset();
  w.device.process = 100;
  successor.reset();
  w.device.dead.clear();
  w.device.process = UINT64_MAX;
  w.ports[0].reset();
}

TEST_CASE("two stacks of one process do not look whether the other lives, and end together", "[steering]") {
  FakeDevice device(1);
  auto first = device.join(1), second = device.join(1);
  const auto service = [&](int ms) {
    for (auto* port : {&first, &second}) {
      device.process = 1;
      (*port)->service(at(ms));
    }
  };
  service(1);
  service(30);
  CHECK(first->max_sleep() == Duration::max());

  // It has no queue: what it sends goes out through the first, which is to have done so before the process ends.
  Packet* p = nullptr;
  REQUIRE(second->pool().alloc(&p, 1) == 1);
  const Frame f = tcp_frame(7, 1);
  std::copy(f.begin(), f.end(), p->data);
  p->len = static_cast<std::uint32_t>(f.size());
  REQUIRE(second->tx(&p, 1) == 1);
  CHECK_FALSE(second->tx_state().delivered);
  CHECK(device.sent.empty());
  std::array<Packet*, 4> none;
  CHECK(first->rx(none.data(), none.size()) == 0);
  CHECK(second->tx_state().delivered);
  CHECK(device.sent.size() == 1);

  auto other = device.join(2);
  service(60);
  CHECK(first->max_sleep() < milliseconds(50));
  device.kill(std::move(first), 1);
  device.kill(std::move(second), 1);
  device.process = 2;
  other->service(at(100));
  CHECK(device.control().members() == StackSet::of(other->number()));
  CHECK(other->queues() == 1);
}
