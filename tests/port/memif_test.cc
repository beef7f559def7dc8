// Two processes on one memif wire. Both ends die and come back.
#include <catch2/catch.hpp>

#include "stack/port/check_device.hh"
#include "tests/port/device.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

std::string wire(const char* role) {
  return std::string("net_memif0,role=") + role + ",socket=mtcp-test-" + std::to_string(getppid());
}

// Answers each "ping" with "pong", until it is killed or told to end.
void answer(Process& parent, const char* role) {
  const auto device = open_or_die(config(wire(role)));
  const auto port = device->claim(0, 1);
  EXPECT(port != nullptr);
  parent.tell();
  while (!parent.told())
    if (receive(*port, "ping")) (void)send(*port, "pong");
}

// Asks until there is an answer: the first packets after a link came up may be lost.
bool exchange(Port& port) {
  Time next{};
  return within(seconds(10), [&] {
    if (now() >= next) {
      next = now() + milliseconds(5);
      (void)send(port, "ping");
    }
    return receive(port, "pong");
  });
}

const char* other(const std::string& role) { return role == "server" ? "client" : "server"; }

}  // namespace

TEST_CASE("two memif processes exchange frames, whichever comes first") {
  const std::string first = GENERATE("server", "client");
  Process early([&](Process& parent) { answer(parent, first.c_str()); });
  REQUIRE(early.wait());
  Process late([&](Process&) {
    const auto before = descriptors();
    const auto device = open_or_die(config(wire(other(first))));
    const auto port = device->claim(0, 2);
    EXPECT(exchange(*port));
    EXPECT(port->link_up());
    EXPECT(within(seconds(5), [&] { return port->tx_state().delivered; }));
    EXPECT(threads() == 1);
    EXPECT(only_hidden_descriptors_since(before));
  });
  CHECK(late.join() == 0);
  early.tell();
  CHECK(early.join() == 0);
}

TEST_CASE("a memif whose buffers hold no packet of the MTU is refused, which the user must mend") {
  bool misconfigured = false;
  std::string message;
  DeviceConfig c = config(wire("server") + ",bsize=2048");
  c.misconfigured = &misconfigured;
  c.mtu = 2034;
  CHECK(check_device(c, message));
  c.mtu = 2035;
  CHECK_FALSE(check_device(c, message));
  CHECK(misconfigured);
  CHECK(message.find("bsize=2048") != std::string::npos);
}

TEST_CASE("a memif port survives its peer's death and serves the next one") {
  const std::string survivor = GENERATE("server", "client");
  Process p([&](Process& parent) {
    const auto device = open_or_die(config(wire(survivor.c_str())));
    const auto port = device->claim(0, 2);
    for (int life = 0; life < 3; ++life) {
      EXPECT(exchange(*port));
      parent.tell();  // kill it
      EXPECT(within(seconds(10), [&] {
        (void)send(*port, "ping");  // into the void, without a crash
        (void)receive(*port, "pong");
        return !port->link_up();
      }));
      EXPECT(port->link().peers_ended == static_cast<std::uint32_t>(life + 1));
      EXPECT(within(seconds(5), [&] { return port->pool().available() == port->pool().capacity(); }));
    }
  });
  for (int life = 0; life < 3; ++life) {
    Process peer([&](Process& parent) { answer(parent, other(survivor)); });
    REQUIRE(peer.wait());
    REQUIRE(p.wait());
    peer.kill_hard();
  }
  CHECK(p.join() == 0);
}

TEST_CASE("the last frames of a memif peer that has ended are received, and then its end is known") {
  constexpr int kFrames = 200;
  const std::string survivor = GENERATE("server", "client");
  const bool killed = GENERATE(false, true);
  Process p([&](Process& parent) {
    const auto device = open_or_die(config(wire(survivor.c_str())));
    const auto port = device->claim(0, 2);
    EXPECT(exchange(*port));
    parent.tell();
    (void)parent.wait();  // frames and the end of the control connection are there when this one looks again
    int received = 0;
    EXPECT(within(seconds(5), [&] {
      port->service(now());
      Packet* in[32];
      const std::size_t n = port->rx(in, 32);
      for (std::size_t i = 0; i < n; ++i) received += has_text(*in[i], "last") ? 1 : 0;
      port->pool().free(in, n);
      return !port->link_up();
    }));
    EXPECT(port->link().peers_ended == 1);
    EXPECT(received == kFrames);
  });
  Process peer([&](Process& parent) {
    const auto device = open_or_die(config(wire(other(survivor))));
    const auto port = device->claim(0, 1);
    while (!parent.told())
      if (receive(*port, "ping")) (void)send(*port, "pong");
    (void)parent.wait();
    for (int i = 0; i < kFrames; ++i) EXPECT(send(*port, "last"));
    EXPECT(!port->tx_state().delivered);
    parent.tell();
    if (killed) pause();
  });
  REQUIRE(p.wait());
  peer.tell();
  REQUIRE(peer.wait());
  killed ? peer.kill_hard() : static_cast<void>(peer.join());
  p.tell();
  CHECK(p.join() == 0);
}

TEST_CASE("a memif port without packets drops what comes") {
  const std::string starved = GENERATE("server", "client");
  Process peer([&](Process& parent) { answer(parent, other(starved)); });
  REQUIRE(peer.wait());
  Process p([&](Process&) {
    const auto device = open_or_die(config(wire(starved.c_str())));
    const auto port = device->claim(0, 2);
    EXPECT(exchange(*port));
    while (sleep_on(*port, milliseconds(20))) (void)receive(*port, "");
    Packet* ping = make_frame(port->pool(), "ping");
    std::vector<Packet*> all(port->pool().capacity());
    all.resize(port->pool().alloc(all.data(), all.size()));
    const std::uint64_t before = port->status().rx_dropped;
    EXPECT(port->tx(&ping, 1) == 1);
    // The packet of the question has come back to the pool: it is taken, too, before the answer comes.
    Packet* last = nullptr;
    if (port->pool().alloc(&last, 1) == 1) all.push_back(last);
    EXPECT(within(seconds(5), [&] {
      Packet* in[32];
      EXPECT(port->rx(in, 32) == 0);
      return port->status().rx_dropped == before + 1;
    }));
    EXPECT(port->arm());
    port->disarm();
    port->pool().free(all.data(), all.size());
    EXPECT(exchange(*port));
  });
  CHECK(p.join() == 0);
  peer.tell();
  CHECK(peer.join() == 0);
}

TEST_CASE("a memif port sleeps until a frame comes") {
  const std::string sleeper = GENERATE("server", "client");
  Process p([&](Process& parent) {
    const auto device = open_or_die(config(wire(sleeper.c_str())));
    const auto port = device->claim(0, 2);
    EXPECT(exchange(*port));
    EXPECT(port->max_sleep() >= milliseconds(10));  // the ring's interrupt is understood
    int wakened = 0;
    for (int round = 0; round < 20; ++round) {
      while (receive(*port, "pong")) {
      }
      // Sleeps of 20 ms at most in a row, woken by none but the frame.
      bool woken = false;
      parent.tell();
      EXPECT(within(seconds(5), [&] {
        woken = sleep_on(*port, seconds(1));
        return receive(*port, "wake");
      }));
      wakened += woken ? 1 : 0;
    }
    EXPECT(wakened >= 15);  // a frame may come just when a sleep ends by itself
  });
  Process peer([&](Process& parent) {
    const auto device = open_or_die(config(wire(other(sleeper))));
    const auto port = device->claim(0, 1);
    parent.tell();
    while (true) {
      if (parent.told()) {
        (void)parent.wait();
        const Time later = now() + milliseconds(3);  // so that it sleeps
        while (now() < later) (void)receive(*port, "");
        EXPECT(send(*port, "wake"));
      }
      if (receive(*port, "ping")) (void)send(*port, "pong");
    }
  });
  REQUIRE(peer.wait());
  for (int round = 0; round < 20; ++round) {
    REQUIRE(p.wait());
    peer.tell();
  }
  CHECK(p.join() == 0);
}

TEST_CASE("an idle memif port wakes up rarely, with its peer and without") {
  const bool with_peer = GENERATE(true, false);
  Process p([&](Process&) {
    const auto device = open_or_die(config(wire("client")));
    const auto port = device->claim(0, 2);
    if (with_peer) EXPECT(exchange(*port));
    const double before = cpu_time();
    const Time end = now() + seconds(1);
    int turns = 0;
    for (; now() < end; ++turns) {
      (void)sleep_on(*port, milliseconds(100));
      (void)receive(*port, "");
    }
    fprintf(stderr, "idle memif client %s peer: %d turns and %.2f %% of a core in a second\n",
            with_peer ? "with" : "without", turns, (cpu_time() - before) * 100);
    EXPECT(turns <= 80);
  });
  Process peer([&](Process& parent) {
    if (with_peer) answer(parent, "server");
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a peer's death is noticed although a child that it forked lives on") {
  Process server([](Process& parent) {
    const auto device = open_or_die(config(wire("server")));
    const auto port = device->claim(0, 1);
    parent.tell();
    while (!parent.told())
      if (receive(*port, "ping")) (void)send(*port, "pong");
    (void)parent.wait();
    EXPECT(within(seconds(5), [&] {
      (void)receive(*port, "");
      return !port->link_up();
    }));
  });
  REQUIRE(server.wait());
  int fds[2];
  REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
  Process client([&](Process& parent) {
    const auto device = open_or_die(config(wire("client")));
    auto port = device->claim(0, 1);
    EXPECT(exchange(*port));
    if (fork() == 0) {
      alarm(30);
      port.reset();
      EXPECT(device->claim(0, 1) == nullptr);  // still the parent's
      device->abandon();
      EXPECT(refusal(config("net_null0")).find("forked") != std::string::npos);
      EXPECT(write(fds[1], "x", 1) == 1);
      close(fds[1]);
      pause();
    }
    char c;
    EXPECT(read(fds[0], &c, 1) == 1);
    parent.tell();
    (void)parent.wait();
  });
  REQUIRE(client.wait());
  client.kill_hard();
  server.tell();
  CHECK(server.join() == 0);
}

TEST_CASE("a second server on one memif socket is refused with a hint") {
  Process first([&](Process& parent) { answer(parent, "server"); });
  REQUIRE(first.wait());
  Process second([&](Process&) {
    const std::string why = refusal(config(wire("server")));
    EXPECT(why.find("already") != std::string::npos);
  });
  CHECK(second.join() == 0);
}
