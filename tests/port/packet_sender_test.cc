// What leaves a PacketSender, with a pair of Unix sockets instead of a packet socket: one datagram is one
// frame.
#include "stack/port/dpdk/af_packet/packet_sender.hh"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <optional>

#include "stack/packet/external.hh"
#include "tests/port/segments.hh"

using namespace mtcp::stack;
using namespace mtcp::stack::dpdk;
using mtcp::test::Segments;

namespace {

constexpr std::size_t kHeader = sizeof(VirtioHeader);

struct Wire {
  explicit Wire(bool offload = true, int type = SOCK_DGRAM, int buffer = 1 << 20) {
    REQUIRE(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()) == 0);
    REQUIRE(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) == 0);
    sender.emplace(fds[0], offload);
  }
  ~Wire() {
    close(fds[0]);
    close(fds[1]);
  }
  // The next frame, its virtio header first where there is one; empty if there is none.
  std::vector<std::byte> receive() const {
    std::vector<std::byte> frame(70000);
    const ssize_t n = recv(fds[1], frame.data(), frame.size(), 0);
    frame.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return frame;
  }
  std::size_t send(const std::vector<Packet*>& packets) {
    return sender->send(packets.data(), packets.size());
  }

  HeapPool pool{256, 2048};
  std::array<int, 2> fds{};
  std::optional<PacketSender> sender;
};

// A mapping, as of a file, of bytes that follow the segments' pattern.
struct Mapped final : ExternalMemory {
  static constexpr std::size_t kSize = 65536;
  explicit Mapped(std::uint32_t seq) {
    void* const at = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(at != MAP_FAILED);
    for (std::uint32_t i = 0; i < kSize; ++i) static_cast<std::byte*>(at)[i] = Segments::byte_at(seq + i);
    base = static_cast<const std::byte*>(at);
  }
  ~Mapped() override { munmap(const_cast<std::byte*>(base), kSize); }
  void read(std::uint32_t, std::span<std::byte> out) const override { std::ranges::fill(out, std::byte{0}); }
  // As a file that is cut off.
  void make_inaccessible() const { REQUIRE(mprotect(const_cast<std::byte*>(base), kSize, PROT_NONE) == 0); }
};

// The next `payload` bytes of `segments`, in `memory`; to be cut into segments of `segment`.
Packet* next_external(Segments& segments, Mapped& memory, std::uint32_t offset, std::size_t payload, std::size_t segment, std::uint8_t flags = 0x10) {
  Packet* p = segments.next(std::min<std::size_t>(payload, 1448), flags);
  const std::size_t more = payload - std::min<std::size_t>(payload, 1448);
  store_be<std::uint16_t>(p->data + 16, static_cast<std::uint16_t>(52 + payload));
  segments.skip(static_cast<std::uint32_t>(more));
  std::memset(p->data + segments.headers(), 0xee, std::min<std::size_t>(payload, 1448));  // not what is to be sent
  p->len = static_cast<std::uint32_t>(segments.headers() + payload);
  p->payload_len = static_cast<std::uint16_t>(payload);
  refer(*p, memory, offset);
  set_segment(*p, static_cast<std::uint32_t>(segment));
  return p;
}

VirtioHeader header_of(const std::vector<std::byte>& frame) {
  VirtioHeader h;
  REQUIRE(frame.size() > kHeader);
  std::memcpy(&h, frame.data(), sizeof h);
  return h;
}

}  // namespace

TEST_CASE("a burst of one flow leaves as one frame that says how it is cut, and gives the packets back") {
  const bool v4 = GENERATE(true, false);
  Wire w;
  Segments segments(w.pool, v4);
  std::vector<Packet*> packets;
  std::vector<std::byte> payload;
  for (int i = 0; i < 10; ++i) {
    packets.push_back(segments.next(i < 9 ? 1000 : 77));
    payload.insert(payload.end(), packets.back()->data + segments.headers(), packets.back()->end());
  }
  packets[3]->flags |= kKeep;
  CHECK(w.send(packets) == 10);
  CHECK(w.pool.available() == w.pool.capacity() - 1);
  CHECK(w.sender->merged() == 1);
  const auto frame = w.receive();
  REQUIRE(frame.size() == kHeader + segments.headers() + 9077);
  const VirtioHeader h = header_of(frame);
  CHECK(int{h.flags} == 1);
  CHECK(int{h.gso_type} == (v4 ? 1 : 4));
  CHECK(h.gso_size == 1000);
  CHECK(h.hdr_len == segments.headers());
  CHECK(h.csum_start == segments.tcp());
  CHECK(h.csum_offset == 16);
  CHECK(std::memcmp(frame.data() + kHeader + segments.headers(), payload.data(), payload.size()) == 0);
  CHECK(w.receive().empty());
  w.pool.free(&packets[3], 1);
}

TEST_CASE("frames of several flows, and what is no segment, leave in their order in one burst") {
  Wire w;
  Segments a(w.pool), b(w.pool, true, 5);
  Packet* other = a.next(10);
  other->flags = 0;  // as ARP: nothing is left to be done to it
  std::vector<Packet*> packets = {a.next(100), a.next(100), b.next(200),
                                  other,       a.next(300), b.next(50, 0x18)};
  CHECK(w.send(packets) == 6);
  const std::array<std::size_t, 5> sizes = {200, 200, 10, 300, 50};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto frame = w.receive();
    REQUIRE(frame.size() == kHeader + 66 + sizes[i]);
    CHECK(int{header_of(frame).flags} == (i == 2 ? 0 : 1));
    CHECK(int{header_of(frame).gso_type} == (i == 0 ? 1 : 0));
  }
  CHECK(w.receive().empty());
  CHECK(w.pool.available() == w.pool.capacity());
}

TEST_CASE("without PACKET_VNET_HDR frames leave as they are") {
  Wire w(false);
  Segments segments(w.pool);
  std::vector<Packet*> packets = {segments.next(100), segments.next(100)};
  for (Packet* p : packets) p->flags = 0;
  CHECK(w.send(packets) == 2);
  for (int i = 0; i < 2; ++i) CHECK(w.receive().size() == 166);
  CHECK(w.sender->merged() == 0);
}

TEST_CASE("more than the kernel has room for stays the caller's, from the first frame that does not go") {
  Wire w(true, SOCK_STREAM, 4608);  // a stream takes parts; so that nothing is merged, all are complete
  Segments segments(w.pool);
  std::vector<Packet*> packets;
  for (int i = 0; i < 200; ++i) packets.push_back(segments.next(0));
  const std::size_t taken = w.send(packets);
  REQUIRE(taken > 0);
  REQUIRE(taken < 200);
  CHECK(w.pool.available() == w.pool.capacity() - (200 - taken));
  CHECK(w.sender->congested());
  CHECK(w.send({packets[taken]}) == 0);
  CHECK(w.receive().size() == taken * (kHeader + 66));
  CHECK(w.send({packets[taken]}) == 1);
  CHECK(!w.sender->congested());
  w.pool.free(packets.data() + taken + 1, 200 - taken - 1);
}

TEST_CASE("a kernel that refuses a merged frame gets its segments one by one, from then on") {
  Wire w(true, SOCK_DGRAM, 4608);  // smaller than the merged one: EMSGSIZE
  Segments segments(w.pool);
  std::vector<Packet*> packets;
  for (int i = 0; i < 8; ++i) packets.push_back(segments.next(1400));
  std::size_t sent = 0, received = 0;
  while (sent < packets.size()) {
    const std::size_t n = w.send({packets.begin() + static_cast<std::ptrdiff_t>(sent), packets.end()});
    REQUIRE(n > 0);
    sent += n;
    for (auto frame = w.receive(); !frame.empty(); frame = w.receive(), ++received) {
      CHECK(frame.size() == kHeader + 66 + 1400);
      CHECK(int{header_of(frame).flags} == 1);
      CHECK(int{header_of(frame).gso_type} == 0);
    }
  }
  CHECK(received == 8);
  CHECK(w.sender->merged() == 0);
  CHECK(w.sender->dropped() == 0);
  CHECK(w.pool.available() == w.pool.capacity());
}

TEST_CASE("what can never be sent is dropped and counted, and does not hold up the rest") {
  Wire w(true, SOCK_DGRAM, 4608);
  HeapPool large(2, 16384);
  Segments a(large), b(w.pool);
  std::vector<Packet*> packets = {a.next(12000), b.next(10)};
  CHECK(w.send(packets) == 2);
  CHECK(w.sender->dropped() == 1);
  CHECK(w.receive().size() == kHeader + 76);
  CHECK(large.available() == 2);
}

TEST_CASE("what is gathered follows on what was written in front of it, in one frame, and is referred to no longer") {
  Wire w;
  Segments segments(w.pool);
  const std::uint32_t first = segments.seq();
  Mapped memory(first + 250);
  const std::vector<Packet*> packets = {segments.next(250, 0x18), next_external(segments, memory, 0, 20000, 1000, 0x18),
                                        next_external(segments, memory, 20000, 700, 0, 0x18)};
  CHECK(memory.references == 2);
  CHECK(w.send(packets) == 3);
  CHECK(memory.references == 0);
  CHECK(w.pool.available() == w.pool.capacity());
  const auto frame = w.receive();
  REQUIRE(frame.size() == kHeader + segments.headers() + 20950);
  CHECK(int{header_of(frame).gso_type} == 1);
  CHECK(header_of(frame).gso_size == 1000);
  std::size_t wrong = 0;
  for (std::uint32_t i = 0; i < 20950; ++i) wrong += frame[kHeader + segments.headers() + i] != Segments::byte_at(first + i) ? 1 : 0;
  CHECK(wrong == 0);
  CHECK(w.receive().empty());
}

TEST_CASE("packets of several segments leave alone where more would be too much for one frame, and those that stay are the sender's") {
  Wire w;
  Segments segments(w.pool);
  Mapped memory(segments.seq());
  const std::vector<Packet*> packets = {next_external(segments, memory, 0, 43440, 1448, 0x18),
                                        next_external(segments, memory, 1000, 30408, 1448, 0x18)};
  packets[0]->flags |= kKeep;
  CHECK(w.send(packets) == 2);
  CHECK(memory.references == 1);
  CHECK(w.sender->merged() == 2);
  CHECK(w.receive().size() == kHeader + segments.headers() + 43440);
  CHECK(w.receive().size() == kHeader + segments.headers() + 30408);
  drop_external(*packets[0]);
  w.pool.free(packets.data(), 1);
}

TEST_CASE("of a file that was cut off zeros are sent, and the burst goes on") {
  Wire w;
  Segments segments(w.pool);
  Mapped memory(segments.seq());
  memory.make_inaccessible();
  const std::vector<Packet*> packets = {next_external(segments, memory, 0, 5000, 1000, 0x18), segments.next(0), next_external(segments, memory, 5000, 100, 0)};
  CHECK(w.send(packets) == 3);
  const auto frame = w.receive();
  REQUIRE(frame.size() == kHeader + segments.headers() + 5000);
  CHECK(header_of(frame).gso_size == 1000);
  CHECK(std::ranges::all_of(std::span(frame).subspan(kHeader + segments.headers()), [](std::byte b) { return b == std::byte{0}; }));
  CHECK(w.receive().size() == kHeader + segments.headers());
  CHECK(w.receive().size() == kHeader + segments.headers() + 100);
  CHECK(w.sender->dropped() == 0);
  CHECK(memory.references == 0);
}
