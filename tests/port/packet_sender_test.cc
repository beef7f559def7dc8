// What leaves a PacketSender, with a pair of Unix sockets instead of a packet socket: one datagram is one
// frame.
#include "stack/port/dpdk/af_packet/packet_sender.hh"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <optional>

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
