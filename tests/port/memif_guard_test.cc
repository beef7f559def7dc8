// A memif server and peers that do not mean well. None of them may end it, read what is not theirs, or keep the next one
// out.
#include <fcntl.h>
#include <grp.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>

#include "stack/port/dpdk/memif/memif_ring.hh"
#include "tests/port/device.hh"

using namespace mtcp::stack;
using namespace mtcp::test;
using dpdk::MemifDescriptor;
using dpdk::MemifRing;

namespace {

std::string name() { return "mtcp-guard-" + std::to_string(getpid()); }
std::string wire(const char* role, const std::string& socket) { return std::string("net_memif0,role=") + role + ",socket=" + socket; }

enum Type : std::uint16_t { kAck = 1, kHello, kInit, kAddRegion, kAddRing, kConnect, kConnected, kDisconnect };

// The client's side of the protocol, by hand.
class Peer {
 public:
  explicit Peer(const std::string& socket) : fd_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    memcpy(a.sun_path + 1, socket.data(), socket.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + socket.size());
    const timeval limit{.tv_sec = 3, .tv_usec = 0};
    EXPECT(setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    // Its backlog is one.
    EXPECT(within(seconds(5), [&] { return connect(fd_, reinterpret_cast<sockaddr*>(&a), size) == 0; }));
  }
  ~Peer() { close(fd_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  struct Message {
    std::array<std::byte, 128> bytes{};
    std::size_t at = 0;
    explicit Message(std::uint16_t type) { add(type); }
    template <typename T>
    Message& add(T value) {
      memcpy(bytes.data() + at, &value, sizeof value);
      at += sizeof value;
      return *this;
    }
    Message& fill() {
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end(), std::byte{'A'});
      return *this;
    }
  };
  // Sends it with descriptors; false if the other side is gone.
  bool send(const Message& m, std::vector<int> fds = {}, std::size_t size = 128) const {
    iovec part{const_cast<std::byte*>(m.bytes.data()), size};
    alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
    msghdr h{};
    h.msg_iov = &part;
    h.msg_iovlen = 1;
    if (!fds.empty()) {
      h.msg_control = control;
      h.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* c = CMSG_FIRSTHDR(&h);
      *c = {.cmsg_len = CMSG_LEN(fds.size() * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
      memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
    }
    return sendmsg(fd_, &h, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  }
  // The type of the next message; 0 when the other side has hung up.
  [[nodiscard]] std::uint16_t answer() const {
    std::array<std::byte, 256> in;
    const ssize_t n = recv(fd_, in.data(), in.size(), 0);
    std::uint16_t type = 0;
    if (n >= 2) memcpy(&type, in.data(), sizeof type);
    return type;
  }
  [[nodiscard]] bool greet() const { return answer() == kHello; }
  bool init() const {
    return send(Message(kInit).add(std::uint16_t{0x200}).add(std::uint32_t{0}).add(std::uint8_t{0}).fill()) && answer() == kAck;
  }
  bool region(int memory, std::uint64_t size, std::uint16_t index = 0) const {
    return send(Message(kAddRegion).add(index).add(size), {memory}) && answer() == kAck;
  }
  bool ring(std::uint16_t to_client, std::uint32_t offset, std::uint8_t log2, int event, std::uint16_t index = 0,
            std::uint16_t region = 0) const {
    return send(Message(kAddRing).add(static_cast<std::uint16_t>(to_client ^ 1)).add(index).add(region).add(offset).add(log2),
                {event}) && answer() == kAck;
  }
  bool connected() const { return send(Message(kConnect).fill()) && answer() == kConnected; }
  [[nodiscard]] bool refused() const {
    const std::uint16_t a = answer();
    return a == 0 || a == kDisconnect;
  }

 private:
  const int fd_;
};

constexpr unsigned kLog2 = 8;
constexpr std::size_t kSlots = 1 << kLog2, kBuffer = 2048;
constexpr std::size_t kRing = sizeof(MemifRing) + kSlots * sizeof(MemifDescriptor);
constexpr std::size_t kSize = 2 * kRing + 2 * kSlots * kBuffer;

// What an honest client would share.
struct Memory {
  explicit Memory(std::size_t size = kSize, unsigned seals = F_SEAL_SHRINK) : fd(memfd_create("peer", MFD_ALLOW_SEALING | MFD_CLOEXEC)) {
    EXPECT(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0);
    if (size >= kSize) {
      at = static_cast<std::byte*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
      for (unsigned r = 0; r < 2; ++r) {
        ring(r).cookie = 0x3E31F20;
        for (unsigned i = 0; i < kSlots; ++i)
          descriptor(r, i) = {0, 0, kBuffer, static_cast<std::uint32_t>(2 * kRing + (r * kSlots + i) * kBuffer), 0};
      }
    }
    if (seals != 0) EXPECT(fcntl(fd, F_ADD_SEALS, seals) == 0);
  }
  ~Memory() { close(fd); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  [[nodiscard]] MemifRing& ring(unsigned r) const { return *reinterpret_cast<MemifRing*>(at + r * kRing); }
  [[nodiscard]] MemifDescriptor& descriptor(unsigned r, unsigned i) const {
    return reinterpret_cast<MemifDescriptor*>(&ring(r) + 1)[i];
  }
  const int fd;
  std::byte* at = nullptr;
};

struct Event {
  Event() : fd(eventfd(0, EFD_CLOEXEC)) {}
  ~Event() { close(fd); }
  const int fd;
};

// Answers each "ping" with "pong", and sends something now and then.
void serve(Process& parent, const std::string& socket) {
  auto c = config(wire("server", socket));
  const auto device = open_or_die(c);
  const auto port = device->claim(0, 1);
  EXPECT(port != nullptr);
  (void)receive(*port, "");
  const auto before = descriptors().size();
  parent.tell();
  while (!parent.told()) {
    (void)send(*port, "hello");
    if (receive(*port, "ping")) (void)send(*port, "pong");
    (void)sleep_on(*port, milliseconds(1));
    while (!port->notice().text.empty()) {
    }
  }
  EXPECT(within(seconds(3), [&] {
    (void)receive(*port, "");
    return !port->link_up() && descriptors().size() <= before;  // what the peers have sent is closed
  }));
}

void expect_an_honest_peer_is_served(const std::string& socket) {
  Process client([&](Process&) {
    const auto device = open_or_die(config(wire("client", socket)));
    const auto port = device->claim(0, 2);
    Time next{};
    EXPECT(within(seconds(10), [&] {
      if (now() >= next) {
        next = now() + milliseconds(5);
        (void)send(*port, "ping");
      }
      return receive(*port, "pong");
    }));
  });
  CHECK(client.join() == 0);
}

void attack(const std::function<void(const std::string& socket)>& how) {
  const std::string socket = name();
  Process server([&](Process& parent) { serve(parent, socket); });
  REQUIRE(server.wait());
  Process attacker([&](Process&) { how(socket); });
  CHECK(attacker.join() == 0);
  expect_an_honest_peer_is_served(socket);
  server.tell();
  CHECK(server.join() == 0);
}

// Connected, with all rings in order.
void connect_well(const Peer& p, const Memory& m, const Event& e, bool greet = true) {
  EXPECT(!greet || p.greet());
  EXPECT(p.init() && p.region(m.fd, kSize) && p.ring(0, 0, kLog2, e.fd) && p.ring(1, kRing, kLog2, e.fd) &&
         p.connected());
}

}  // namespace

TEST_CASE("memif: memory that is shorter than announced, can shrink, or is no plain memory is refused") {
  attack([](const std::string& socket) {
    const Memory shorter(4096), loose(kSize, 0), fixed(kSize, F_SEAL_SHRINK);
    const int file = open("/dev/zero", O_RDWR | O_CLOEXEC);
    struct Try {
      int fd;
      std::uint64_t size;
      std::uint16_t index = 0;
    };
    for (const Try t : {Try{shorter.fd, kSize}, Try{loose.fd, kSize}, Try{file, kSize}, Try{fixed.fd, kSize + 1},
                        Try{fixed.fd, ~std::uint64_t{0}}, Try{fixed.fd, 0}, Try{fixed.fd, kSize, 1}}) {
      const Peer p(socket);
      EXPECT(p.greet() && p.init());
      EXPECT(!p.region(t.fd, t.size, t.index));
    }
  });
}

TEST_CASE("memif: rings that do not lie in the memory, and wake-ups that are no eventfd, are refused") {
  attack([](const std::string& socket) {
    const Memory m;
    const Event e;
    std::array<int, 2> pipe{};
    EXPECT(pipe2(pipe.data(), O_CLOEXEC) == 0);
    const auto fresh = [&] {
      auto p = std::make_unique<Peer>(socket);
      EXPECT(p->greet() && p->init() && p->region(m.fd, kSize));
      return p;
    };
    EXPECT(!fresh()->ring(0, 0xF0000000, kLog2, e.fd));
    EXPECT(!fresh()->ring(0, kSize - 64, kLog2, e.fd));
    EXPECT(!fresh()->ring(0, 0, 15, e.fd));
    EXPECT(!fresh()->ring(0, 0, 0, e.fd));
    EXPECT(!fresh()->ring(0, 4, kLog2, e.fd));
    EXPECT(!fresh()->ring(0, 0, kLog2, e.fd, 7));
    EXPECT(!fresh()->ring(0, 0, kLog2, e.fd, 0, 300));
    EXPECT(!fresh()->ring(0, 0, kLog2, pipe[0]));
    auto p = fresh();
    EXPECT(p->ring(0, 0, kLog2, e.fd));
    EXPECT(!p->ring(0, 0, kLog2, e.fd));  // once more
    p = fresh();
    EXPECT(p->ring(0, 0, kLog2, e.fd));
    EXPECT(!p->connected());  // with one ring only
  });
}

TEST_CASE("memif: messages out of order, too short, without their descriptor or with several are refused") {
  attack([](const std::string& socket) {
    const Memory m;
    const Event e;
    const auto refused = [&](const std::function<void(const Peer&)>& play) {
      const Peer p(socket);
      EXPECT(p.greet());
      play(p);
      EXPECT(p.refused());
    };
    for (const std::uint16_t type : {kHello, kAddRegion, kAddRing, kConnect, kConnected})
      refused([&](const Peer& p) { p.send(Peer::Message(type).fill()); });
    refused([](const Peer& p) { p.send(Peer::Message(kInit), {}, 5); });
    refused([](const Peer& p) {
      EXPECT(p.init());
      p.send(Peer::Message(kInit).add(std::uint16_t{0x200}));
    });
    refused([](const Peer& p) {
      EXPECT(p.init());
      p.send(Peer::Message(kAddRegion).add(std::uint16_t{0}).add(std::uint64_t{kSize}));
    });
    refused([&](const Peer& p) {
      EXPECT(p.init());
      p.send(Peer::Message(kAddRegion).add(std::uint16_t{0}).add(std::uint64_t{kSize}), {m.fd, e.fd});
    });
    refused([&](const Peer& p) { p.send(Peer::Message(kAck), {e.fd, e.fd, e.fd}); });
    refused([&](const Peer& p) {
      connect_well(p, m, e, false);
      p.send(Peer::Message(kAddRegion).add(std::uint16_t{1}).add(std::uint64_t{kSize}), {m.fd});
    });
    for (int i = 0; i < 50; ++i) const Peer p(socket);  // gone before it is greeted
  });
}

TEST_CASE("memif: a connected peer may write into the rings what it likes") {
  attack([](const std::string& socket) {
    const Memory m;
    const Event e;
    const Peer p(socket);
    connect_well(p, m, e);
    EXPECT(ftruncate(m.fd, 0) != 0);
    srand(1);
    for (const int how : {0, 1, 2, 3}) {
      for (int round = 0; round < 200; ++round) {
        for (unsigned r = 0; r < 2; ++r) {
          for (unsigned i = 0; i < kSlots; ++i) {
            MemifDescriptor& d = m.descriptor(r, i);
            d.offset = how == 0 ? 0xF0000000 : how == 1 ? static_cast<std::uint32_t>(kSize - 8) : static_cast<std::uint32_t>(rand());
            d.length = how == 3 ? 0xffffffff : 2048;
            d.region = static_cast<std::uint16_t>(how == 2 ? rand() : 0);
            d.flags = static_cast<std::uint16_t>(how);  // also: all go on in the next one, for ever
          }
          m.ring(r).head = static_cast<std::uint16_t>(how == 0 ? 200 : rand());
          m.ring(r).tail = static_cast<std::uint16_t>(rand());
          m.ring(r).flags = 0;
          m.ring(r).cookie = 0;
        }
        EXPECT(eventfd_write(e.fd, 1) == 0);
        usleep(500);
      }
    }
  });
}

TEST_CASE("memif: another user's processes are refused, at either end, unless they are allowed to") {
  if (geteuid() != 0) return;
  constexpr uid_t kOther = 65534;
  const auto become_other = [] { EXPECT(setgroups(0, nullptr) == 0 && setresuid(kOther, kOther, kOther) == 0); };
  attack([&](const std::string& socket) {
    become_other();
    for (int i = 0; i < 20; ++i) EXPECT(!Peer(socket).greet());
  });
  const bool allowed = GENERATE(false, true);
  const std::string socket = name();
  Process server([&](Process& parent) {
    become_other();
    serve(parent, socket);
  });
  REQUIRE(server.wait());
  Process client([&](Process&) {
    auto c = config(wire("client", socket));
    if (allowed) c.peer_users = {1, kOther};
    const auto device = open_or_die(c);
    const auto port = device->claim(0, 2);
    std::string said;
    (void)within(allowed ? seconds(10) : seconds(2), [&] {
      (void)receive(*port, "");
      said += port->notice().text;
      return port->link_up();
    });
    EXPECT(port->link_up() == allowed);
    EXPECT(allowed == said.empty());
    EXPECT(allowed || said.find("user 65534: refused; [device] peer_users = [65534]") != said.npos);
  });
  CHECK(client.join() == 0);
  server.tell();
  CHECK(server.join() == 0);
}

TEST_CASE("memif: an end without a peer says so once, after a second") {
  const std::string role = GENERATE("client", "server");
  Process p([&](Process&) {
    const auto device = open_or_die(config(wire(role.c_str(), name())));
    const auto port = device->claim(0, 2);
    int lines = 0;
    const Time start = now();
    (void)within(milliseconds(2500), [&] {
      (void)receive(*port, "");
      if (const std::string text = port->notice().text; !text.empty()) {
        EXPECT(text.find("no peer yet: link down") != text.npos);
        EXPECT(now() - start >= milliseconds(900));
        ++lines;
      }
      usleep(5000);
      return false;
    });
    EXPECT(lines == 1);
    EXPECT(!port->link_up());
  });
  CHECK(p.join() == 0);
}
