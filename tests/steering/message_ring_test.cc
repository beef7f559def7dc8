#include <catch2/catch.hpp>
#include <cstring>
#include <thread>
#include <vector>

#include "stack/steering/message_ring.hh"

using namespace mtcp::stack;

namespace {

constexpr std::uint64_t kTag = 0x8000'0000'0000'0001;

struct Box {
  static constexpr std::size_t kFrame = 100, kSlots = 8;
  std::vector<std::byte> memory = std::vector<std::byte>(MessageRing::memory(kFrame, kSlots) + 64);
  MessageRing box{reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64), kFrame, kSlots};

  bool put(std::uint64_t value, std::size_t size = sizeof(std::uint64_t)) {
    if (box.room() == 0) return false;
    std::vector<std::byte> bytes(size);
    std::memcpy(bytes.data(), &value, std::min(size, sizeof value));
    if (!box.write(0, {MessageKind::frame, 6, kTag, bytes})) return false;
    box.announce(1);
    return true;
  }
  std::uint64_t take() {
    std::uint64_t value = 0;
    const Message l = box.read();
    std::memcpy(&value, l.bytes.data(), sizeof value);
    box.release();
    return value;
  }
};

}  // namespace

TEST_CASE("messages come out as they went in, in order, and no more fit than there are slots", "[message_ring]") {
  Box b;
  CHECK(b.box.empty());
  for (std::uint64_t round = 0; round < 5; ++round) {
    for (std::uint64_t i = 0; i < Box::kSlots; ++i) CHECK(b.put(100 * round + i));
    CHECK_FALSE(b.put(7));
    CHECK(b.box.read().tag == kTag);
    CHECK(b.box.read().flags == 4);  // kRxL4Good; kQueued is no message's
    for (std::uint64_t i = 0; i < Box::kSlots; ++i) CHECK(b.take() == 100 * round + i);
    CHECK(b.box.empty());
  }
}

TEST_CASE("what has been written but not announced is not there", "[message_ring]") {
  Box b;
  const std::byte byte{1};
  CHECK(b.box.write(0, {MessageKind::frame, 0, {}, {&byte, 1}}));
  CHECK(b.box.write(1, {MessageKind::handover, 0, {}, {&byte, 1}}));
  CHECK(b.box.empty());
  b.box.announce(2);
  CHECK(b.box.read().kind == MessageKind::frame);
  b.box.release();
  CHECK(b.box.read().kind == MessageKind::handover);
  b.box.release();
  CHECK(b.box.empty());
}

TEST_CASE("what is of one connection is read together, and nothing else", "[message_ring]") {
  Box b;
  const std::byte byte{1};
  const auto write = [&](std::size_t n, MessageKind kind, std::uint64_t flow) { return b.box.write(n, {kind, 0, {}, {&byte, 1}, flow}); };
  REQUIRE((write(0, MessageKind::frame, 7) && write(1, MessageKind::handover, 7) && write(2, MessageKind::handover, 7)));
  b.box.announce(3);
  REQUIRE(write(0, MessageKind::handover, 8));
  MessageRing::Group group;
  for (const std::size_t n : {1U, 2U}) {
    CHECK(b.box.read_group(group).size() == n);
    b.box.release(n);
  }
  CHECK(b.box.empty());
  b.box.announce(1);
  std::size_t groups = 0;
  b.box.drain([&](std::span<const Message> messages) {
    ++groups;
    CHECK(messages.size() == 1);
    CHECK(messages.front().flow == 8);
  });
  CHECK(groups == 1);
}

TEST_CASE("a message larger than a slot is refused", "[message_ring]") {
  Box b;
  CHECK(b.put(1, Box::kFrame));
  CHECK_FALSE(b.put(1, Box::kFrame + 64));
}

TEST_CASE("writer and reader on two threads", "[message_ring]") {
  Box b;
  constexpr std::uint64_t kCount = 20000;
  std::thread writer([&b] {
    for (std::uint64_t i = 0; i < kCount;) b.put(i) ? void(++i) : std::this_thread::yield();
  });
  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    while (b.box.empty()) std::this_thread::yield();
    wrong += b.take() != i ? 1U : 0U;
  }
  writer.join();
  CHECK(wrong == 0);
}
