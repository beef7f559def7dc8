// Several processes, each with a stack of its own, on one af_packet or af_xdp device.
#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "stack/base/bytes.hh"
#include "stack/steering/control_block.hh"
#include "tests/port/device.hh"
#include "tests/port/segments.hh"
#include "tests/port/wire.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

DeviceConfig shared(std::uint32_t queues, const char* port = kPort) {
  auto c = config(port);
  c.queues = queues;
  return c;
}

// A TCP segment to 10.77.0.2, flow by `port`, as the kernel's end would send it.
std::string segment(std::uint16_t port, std::uint32_t number) {
  std::string f(60, 0);
  auto* b = reinterpret_cast<std::byte*>(f.data());
  f.replace(0, 12, std::string("\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12));
  store_be<std::uint16_t>(b + 12, 0x0800);
  b[14] = std::byte{0x45};
  store_be<std::uint16_t>(b + 16, 40);
  b[22] = std::byte{64};
  b[23] = std::byte{6};
  store_be<std::uint32_t>(b + 26, 0x0a4d0001);
  store_be<std::uint32_t>(b + 30, 0x0a4d0002);
  store_be<std::uint16_t>(b + 34, port);
  store_be<std::uint16_t>(b + 36, 80);
  store_be<std::uint32_t>(b + 38, number);
  b[46] = std::byte{0x50};
  return f;
}

bool is_segment(const Packet& p) {
  return p.len >= 54 && load_be<std::uint16_t>(p.data + 12) == 0x0800 && p.data[23] == std::byte{6} &&
         load_be<std::uint16_t>(p.data + 36) == 80;
}

// What a stack says of each segment: who it is, and which one it had.
struct Answer {
  std::uint32_t who = 0;
  std::uint16_t port = 0;
  std::uint32_t number = 0;
};

void answer(Port& port, const Packet& in, std::uint32_t who) {
  const Answer a{who, load_be<std::uint16_t>(in.data + 34), load_be<std::uint32_t>(in.data + 38)};
  std::string text(sizeof a, 0);
  memcpy(text.data(), &a, sizeof a);
  (void)mtcp::test::send(port, text);
}

std::size_t serve(Port& port, std::uint32_t who) {
  port.service(now());
  std::array<Packet*, 32> in;
  const std::size_t n = port.rx(in.data(), in.size());
  for (std::size_t i = 0; i < n; ++i)
    if (is_segment(*in[i])) answer(port, *in[i], who);
  port.pool().free(in.data(), n);
  return n;
}

[[noreturn]] void serve_for_ever(Port& port, std::uint32_t who) {
  while (true)
    if (serve(port, who) == 0) (void)sleep_on(port, milliseconds(5));
}

// The kernel's end of the wire.
class Peer {
 public:
  void send(std::uint16_t port, std::uint32_t number) {
    const std::string f = segment(port, number);
    EXPECT(::send(fd_, f.data(), f.size(), 0) == static_cast<ssize_t>(f.size()));
  }
  bool receive(Answer& a) {
    std::array<char, 2048> buffer;
    if (recv(fd_, buffer.data(), buffer.size(), 0) < static_cast<ssize_t>(14 + sizeof a)) return false;
    memcpy(&a, buffer.data() + 14, sizeof a);
    return true;
  }
  // Segment `number` of each of `flows` flows, again until it is answered: port -> who.
  std::map<std::uint16_t, std::uint32_t> ask(std::uint16_t flows, std::uint32_t number) {
    std::map<std::uint16_t, std::uint32_t> owners;
    EXPECT(within(seconds(5), [&] {
      for (std::uint16_t i = 0; i < flows; ++i)
        if (!owners.contains(i)) send(i, number);
      const Time end = now() + milliseconds(10);
      Answer a;
      while (owners.size() < flows && now() < end)
        if (receive(a) && a.number == number) owners[a.port] = a.who;
      return owners.size() == flows;
    }));
    return owners;
  }

 private:
  const int fd_ = packet_socket("peer");
};

}  // namespace

TEST_CASE("processes that share a device each have flows of their own, whatever queue they come on") {
  const auto [kind, queues] =
      GENERATE(table<const char*, std::uint32_t>({{kPort, 1}, {kPort, 2}, {kPort, 4}, {kXdpPort, 1}}));
  const std::uint32_t stacks = GENERATE(1u, 2u, 3u);
  Process p([kind = kind, queues = queues, stacks](Process&) {
    make_wire();
    Peer peer;
    const auto device = open_or_die(shared(queues, kind));
    EXPECT(device->secrets().has_value());
    std::vector<std::unique_ptr<Process>> processes;
    for (std::uint32_t i = 1; i <= stacks; ++i) {
      processes.push_back(std::make_unique<Process>([&, i](Process& parent) {
        const auto port = device->join().port;
        EXPECT(port != nullptr && port->mtu() == 1500);
        EXPECT((port->mac() == MacAddress{{2, 0, 0, 0, 0, 2}}));
        parent.tell();
        serve_for_ever(*port, i);
      }));
    }
    for (const auto& process : processes) EXPECT(process->wait());
    // The table may still be on its way to one of them; when all are in it nothing changes any more.
    std::map<std::uint16_t, std::uint32_t> owners;
    std::map<std::uint32_t, int> shares;
    std::uint32_t round = 0;
    EXPECT(within(seconds(5), [&] {
      owners = peer.ask(200, ++round);
      shares.clear();
      for (const auto& [port, who] : owners) ++shares[who];
      return shares.size() == stacks;
    }));
    EXPECT(peer.ask(200, ++round) == owners);
    for (const auto& [who, flows] : shares) EXPECT(flows > 20);
  });
  CHECK(p.join() == 0);
}

TEST_CASE(
    "a stack that is killed again and again takes no packet along, and the others have its queue and its "
    "flows") {
  const auto [kind, queues] = GENERATE(table<const char*, std::uint32_t>({{kPort, 2}, {kXdpPort, 1}}));
  Process p([kind = kind, queues = queues](Process&) {
    make_wire();
    Peer peer;
    const auto device = open_or_die(shared(queues, kind));
    Process survivor([&](Process& parent) {
      const auto port = device->join().port;
      EXPECT(port != nullptr);
      const std::size_t all = port->pool().capacity();
      EXPECT(port->pool().available() == all);
      parent.tell();
      while (!parent.told()) (void)serve(*port, 1);
      // Until nothing comes any more; then every packet is back.
      EXPECT(within(seconds(2), [&] {
        while (serve(*port, 1) > 0) {
        }
        return port->pool().available() == all;
      }));
      parent.tell();
      (void)parent.wait();
    });
    EXPECT(survivor.wait());
    const auto before = descriptors();
    for (std::uint32_t life = 1; life <= 50; ++life) {
      Process victim([&](Process& parent) {
        const auto port = device->join().port;
        EXPECT(port != nullptr);
        // What had been passed on to the one before it is received first; what that one had in hand is not missing.
        EXPECT(within(seconds(2), [&] {
          while (serve(*port, 2) > 0) {
          }
          return port->pool().available() == port->pool().capacity();
        }));
        std::array<Packet*, 100> in_hand;
        EXPECT(port->pool().alloc(in_hand.data(), in_hand.size()) == in_hand.size());
        parent.tell();
        while (true) (void)serve(*port, 2);
      });
      EXPECT(victim.wait());
      for (std::uint16_t i = 0; i < 64 + life * 3; ++i) peer.send(i, 0);
      victim.kill_hard();
      const auto owners = peer.ask(64, life);
      if (life % 10 != 0) continue;  // the rest go on at once, with the dead not yet noticed
      EXPECT(within(seconds(2), [&] {
        Answer a;
        while (peer.receive(a)) {
        }
        for (const auto& [port, who] : peer.ask(64, 1000 + life))
          if (who != 1) return false;
        return true;
      }));
    }
    EXPECT(descriptors() == before);
    survivor.tell();
    EXPECT(survivor.wait());
  });
  CHECK(p.join() == 0);
}

TEST_CASE("what a stack was sending when it was killed does not stop its successor's queue") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(shared(1));
    for (int life = 0; life < 50; ++life) {
      const std::string text = "life " + std::to_string(life);
      Process child([&](Process& parent) {
        std::unique_ptr<Port> port;
        EXPECT(within(seconds(5), [&] { return (port = device->claim(0, 3)) != nullptr; }));
        EXPECT(mtcp::test::send(*port, text));
        EXPECT(parent.wait());
        parent.tell();
        Segments segments(port->pool());
        while (true) {
          std::array<Packet*, 16> burst;
          for (std::size_t i = 0; i < burst.size(); ++i)  // half of them leave as one
            burst[i] = i < 8 ? make_frame(port->pool(), "more") : segments.next(1400);
          const std::size_t taken = port->tx(burst.data(), burst.size());
          port->pool().free(burst.data() + taken, burst.size() - taken);
        }
      });
      EXPECT(within(seconds(2), [&] { return kernel_receives(fd, text); }));
      child.tell();
      EXPECT(child.wait());
      const Time end = now() + std::chrono::microseconds(100 + life * 37);
      while (now() < end) {
      }
      child.kill_hard();
      char frame[64];
      while (recv(fd, frame, sizeof frame, 0) > 0) {
      }
    }
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a stack without a queue sleeps until another one sends it something") {
  Process p([](Process&) {
    make_wire();
    Peer peer;
    const auto device = open_or_die(shared(1));
    Process first([&](Process& parent) {
      const auto port = device->join().port;
      EXPECT(port != nullptr);
      parent.tell();
      serve_for_ever(*port, 1);
    });
    EXPECT(first.wait());
    Process second([&](Process& parent) {
      const auto port = device->join().port;
      EXPECT(port != nullptr);
      parent.tell();
      // Never looks without having been woken.
      while (true)
        if (sleep_on(*port, milliseconds(20)))
          (void)serve(*port, 2);
        else
          port->service(now());
    });
    EXPECT(second.wait());
    // The table may still be on its way to the second one.
    std::map<std::uint16_t, std::uint32_t> owners;
    std::uint32_t round = 0;
    EXPECT(within(seconds(5), [&] {
      owners = peer.ask(64, ++round);
      return std::ranges::count(owners, 2u, [](const auto& o) { return o.second; }) > 20;
    }));
    std::vector<double> ms;
    for (const std::uint32_t end = round + 3; ++round <= end;) {
      for (const auto& [port, who] : owners) {
        if (who != 2) continue;
        const Time sent = now();
        peer.send(port, round);
        Answer a{};
        EXPECT(within(seconds(1), [&, from = port] { return peer.receive(a) && a.port == from && a.number == round; }));
        EXPECT(a.who == 2);
        ms.push_back(std::chrono::duration<double, std::milli>(now() - sent).count());
      }
    }
    EXPECT(ms.size() >= 20);
    std::sort(ms.begin(), ms.end());
    fprintf(stderr, "woken by another process, there and back: median %.3f ms, most %.3f ms\n",
            ms[ms.size() / 2], ms.back());
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a child that is forked by a process with a stack gets a stack of its own") {
  Process p([](Process&) {
    make_wire();
    Peer peer;
    const auto device = open_or_die(shared(2));
    Process parent([&](Process& test) {
      auto port = device->join().port;
      EXPECT(port != nullptr);
      Process child([&](Process& me) {
        (void)port.release();  // the parent's
        const auto own = device->join().port;
        EXPECT(own != nullptr && own->pool().available() == own->pool().capacity());
        me.tell();
        serve_for_ever(*own, 2);
      });
      EXPECT(child.wait());
      test.tell();
      serve_for_ever(*port, 1);
    });
    EXPECT(parent.wait());
    std::set<std::uint32_t> who;
    EXPECT(within(seconds(5), [&] {
      for (const auto& [port, owner] : peer.ask(64, 1)) who.insert(owner);
      return who.size() == 2;
    }));
  });
  CHECK(p.join() == 0);
}
