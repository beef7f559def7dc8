#include "stack/capture/capture.hh"

#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/stats.hh"

using namespace mtcp::stack;

namespace {

constexpr std::size_t kRing = kLeastCaptureRing;

struct Seen {
  std::string bytes;
  std::uint32_t length;
  CaptureDirection direction;
  std::int64_t time;
};

// The memory as two processes have it, and the reader's part.
struct Reader {
  struct alignas(64) Memory {
    std::byte bytes[sizeof(CaptureHeader) + kRing];
  };
  std::unique_ptr<Memory> memory = std::make_unique<Memory>();
  Capture capture;

  explicit Reader(std::uint32_t snap_length = 65535, PacketFilter filter = *PacketFilter::check({}))
      : capture(memory->bytes, std::move(filter), snap_length) {}
  CaptureHeader& header() { return *reinterpret_cast<CaptureHeader*>(memory->bytes); }

  std::vector<Seen> read() {
    std::vector<Seen> out;
    for (std::uint64_t tail = header().tail; tail != header().head;) {
      const std::byte* at = memory->bytes + sizeof(CaptureHeader) + tail % kRing;
      CaptureRecord r;
      std::memcpy(&r, at, sizeof r);
      REQUIRE(r.size % alignof(CaptureRecord) == 0);
      REQUIRE(tail % kRing + r.size <= kRing);
      if (r.direction != CaptureDirection::none) {
        REQUIRE(r.captured <= r.size - sizeof r);
        out.push_back({std::string(reinterpret_cast<const char*>(at + sizeof r), r.captured), r.length, r.direction, r.time});
      }
      header().tail = tail += r.size;
    }
    return out;
  }
};

struct World {
  HeapPool pool{256};
  PacketCache cache{pool};
  std::vector<Packet*> packets;

  ~World() {
    for (Packet* p : packets) cache.free(p);
  }
  Packet* add(const std::string& text, std::uint16_t flags = 0) {
    Packet* p = cache.alloc();
    std::memcpy(p->data, text.data(), text.size());
    p->len = static_cast<std::uint32_t>(text.size());
    p->flags = flags;
    packets.push_back(p);
    return p;
  }
};

}  // namespace

TEST_CASE("a capture has what was received, but no messages of other stacks") {
  World w;
  Reader r;
  CaptureSet set([] { return Time(Duration(17)); });
  REQUIRE(set.add(r.capture));
  w.add("first");
  w.add("message", kHandover);
  w.add("question", kPull);
  w.add("second");
  set.received(w.packets.data(), w.packets.size());
  const auto seen = r.read();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].bytes == "first");
  CHECK(seen[0].time == 17);
  CHECK(seen[0].direction == CaptureDirection::in);
  CHECK(seen[1].bytes == "second");
  CHECK(r.header().accepted == 2);
}

TEST_CASE("a capture has of what was offered to the device what it took, each packet once") {
  World w;
  Reader r;
  CaptureSet set([] { return Time(Duration(17)); });
  REQUIRE(set.add(r.capture));
  for (const char* text : {"a", "b", "c"}) w.add(text);
  set.offer(w.packets.data(), 3);
  CHECK(r.read().empty());  // not before it is known
  set.sent(1);
  set.offer(w.packets.data() + 1, 2);
  set.sent(0);
  set.offer(w.packets.data() + 1, 2);
  set.sent(2);
  std::string all;
  for (const Seen& s : r.read()) all += s.bytes;
  CHECK(all == "abc");
  CHECK(r.header().accepted == 3);
}

TEST_CASE("a capture cuts packets at its snapshot length and says how long they were") {
  World w;
  Reader r(4);
  w.add("123456");
  r.capture.receive(w.packets[0]->bytes(), Time{});
  r.capture.publish();
  const auto seen = r.read();
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].bytes == "1234");
  CHECK(seen[0].length == 6);
}

TEST_CASE("a capture whose reader sleeps drops and counts, and goes on when it reads") {
  Reader r;
  const std::vector<std::byte> packet(1400);
  constexpr int kMany = 1000;
  for (int i = 0; i < kMany; ++i) r.capture.receive(packet, Time{});
  r.capture.publish();
  CHECK(r.header().accepted == kMany);
  const std::uint64_t dropped = r.header().dropped;
  CHECK(dropped > kMany / 2);
  CHECK(r.read().size() == kMany - dropped);
  for (int i = 0; i < 100; ++i) r.capture.receive(packet, Time{});
  r.capture.publish();
  CHECK(r.read().size() == 100);
  CHECK(r.header().dropped == dropped);
}

TEST_CASE("a capture's ring goes round whatever the packets' lengths, and loses nothing that is read in time") {
  Reader r;
  std::uint64_t count = 0;
  for (std::size_t length = 0; length < 9000; length += 7) {
    const std::vector<std::byte> packet(length, static_cast<std::byte>(length));
    r.capture.receive(packet, Time{});
    r.capture.publish();
    for (const Seen& s : r.read()) {
      REQUIRE(s.bytes.size() == length);
      CHECK((length == 0 || static_cast<unsigned char>(s.bytes.back()) == static_cast<unsigned char>(length)));
      ++count;
    }
  }
  CHECK(count == 9000 / 7 + 1);
  CHECK(r.header().dropped == 0);
}

TEST_CASE("a capture's reader can spoil its own packets only") {
  Reader r;
  const std::vector<std::byte> packet(100);
  for (const std::uint64_t tail : {std::uint64_t{1} << 40, UINT64_MAX, std::uint64_t{kRing} + 1, std::uint64_t{0} - kRing}) {
    r.header().tail = tail;
    r.header().head = tail * 3;  // which the stack does not read
    for (int i = 0; i < 10'000; ++i) r.capture.receive(packet, Time{});  // the sanitizer watches
    r.capture.publish();
  }
  CHECK(r.header().accepted == 40'000);
  CHECK(r.header().dropped > 30'000);
}

TEST_CASE("what leaves the loopback wire is captured with an Ethernet header, and is as it was afterwards") {
  World w;
  Reader r;
  CaptureSet set([] { return Time(Duration(17)); });
  REQUIRE(set.add(r.capture));
  Packet* p = w.add("\x45rest");
  std::byte* const data = p->data;
  set.looped(*p);
  set.looped(*w.add("\x60rest"));
  CHECK((p->data == data && p->len == 5 && std::memcmp(data, "\x45rest", 5) == 0));
  const auto seen = r.read();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].bytes.substr(12) == std::string("\x08\x00\x45rest", 7));
  CHECK(seen[1].bytes.substr(12) == std::string("\x86\xdd\x60rest", 7));
}

TEST_CASE("a stack has four readers at most, each with a filter of its own") {
  World w;
  Reader all, none(65535, *PacketFilter::check(std::vector<FilterInstruction>{{0x06, 0, 0, 0}})), third, fourth, fifth;
  CaptureSet set([] { return Time(Duration(17)); });
  for (Reader* r : {&all, &none, &third, &fourth}) CHECK(set.add(r->capture));
  CHECK_FALSE(set.add(fifth.capture));
  set.remove(third.capture);
  CHECK(set.add(fifth.capture));
  w.add("x");
  set.received(w.packets.data(), 1);
  CHECK(all.read().size() == 1);
  CHECK(none.read().empty());
  CHECK(none.header().accepted == 0);
  CHECK(third.read().empty());
  CHECK(fifth.read().size() == 1);
  for (Reader* r : {&all, &none, &fourth, &fifth}) set.remove(r->capture);
  CHECK(set.empty());
}
