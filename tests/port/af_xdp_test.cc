// net_af_xdp on a veth pair in a network namespace of the test's own, against the kernel. Queues that several
// processes have in turn: umem_test.cc; several stacks on a device: sharing_test.cc.
#include <catch2/catch.hpp>

#include "tests/port/exchange.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

bool says(const char* command, const std::string& text) {
  FILE* pipe = popen(command, "re");
  EXPECT(pipe != nullptr);
  std::string output(1 << 16, 0);
  output.resize(fread(output.data(), 1, output.size(), pipe));
  pclose(pipe);
  return output.find(text) != std::string::npos;
}

// The interface's XDP program, as ip link shows it.
bool has_program() { return says("ip link show dev ours", "xdp"); }

// In a process of its own, because DPDK starts once.
bool refused(const DeviceConfig& c, const char* text) {
  Process p([&](Process&) {
    const std::string message = refusal(c);
    if (message.find(text) == std::string::npos) fprintf(stderr, "it says: %s\n", message.c_str());
    EXPECT(message.find(text) != std::string::npos);
  });
  return p.join() == 0;
}

}  // namespace

TEST_CASE("frames go from the kernel to an af_xdp port and back") {
  Process p([](Process&) {
    make_wire();
    exchange_frames(config(kXdpPort), 6000);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("bursts go out whole, also those that are more than the kernel sends at a time") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(config(kXdpPort));
    const auto port = device->claim(0, 1);
    for (int round = 0; round < 20; ++round) {
      std::array<Packet*, 200> burst;
      for (Packet*& q : burst) q = make_frame(port->pool(), "burst");
      EXPECT(port->tx(burst.data(), burst.size()) == burst.size());
      std::size_t got = 0;
      EXPECT(within(seconds(2), [&] {
        port->service(now());
        while (kernel_receives(fd, "burst")) ++got;
        return got == burst.size();
      }));
      EXPECT(port->max_sleep() > seconds(1));  // nothing waits
    }
    EXPECT(port->pool().available() == port->pool().capacity());
  });
  CHECK(p.join() == 0);
}

TEST_CASE("af_xdp: a checksum that the kernel left to the hardware counts as good, a wrong one does not") {
  Process p([](Process&) {
    make_wire();
    const auto device = open_or_die(config(kXdpPort));
    expect_checksums_vouched_for(*device->claim(0, 1));
  });
  CHECK(p.join() == 0);
}

TEST_CASE(
    "af_xdp: a kernel sender's data arrives in segments that fit the MTU, with its offloads and without") {
  const char* setting =
      GENERATE("", "ethtool -K peer tx off >/dev/null", "ethtool -K peer tso off gso off >/dev/null");
  Process p([=](Process&) {
    make_wire();
    if (*setting != 0) run(setting);
    const auto device = open_or_die(config(kXdpPort));
    const auto port = device->claim(0, 1);
    EXPECT(take_megabyte(*port) > 700);
  });
  CHECK(p.join() == 0);
}

TEST_CASE(
    "af_xdp on an interface whose driver knows nothing of XDP takes packets of a sender without TSO, and "
    "counts the others") {
  const bool tso = GENERATE(false, true);
  Process p([=](Process&) {
    make_wire();
    run("ip link set ours address 02:00:00:00:00:07 && ip link add link ours name over type macvlan mode "
        "bridge && "
        "ip link set over address 02:00:00:00:00:02 && ip link set over up");
    if (!tso) run("ethtool -K peer tso off gso off >/dev/null");
    const auto device = open_or_die(config("net_af_xdp0,iface=over"));
    EXPECT(says("ip link show dev over", "xdpgeneric"));
    const auto port = device->claim(0, 1);
    if (!tso) {
      EXPECT(take_megabyte(*port) > 700);
      return;
    }
    TinyTcp tcp(*port);
    const int fd = start_connect();
    Packet* syn = tcp.receive();
    EXPECT(syn != nullptr);
    tcp.reply(*syn, 0x12, 1000, load_be<std::uint32_t>(syn->data + 34 + 4) + 1);
    tcp.drop(syn);
    const std::string data(1 << 20, 'x');
    EXPECT(within(seconds(5), [&] { return ::send(fd, data.data(), data.size(), MSG_NOSIGNAL) > 0; }));
    EXPECT(within(seconds(5), [&] { return port->status().rx_dropped > 0; }));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("an af_xdp port without packets drops what comes") {
  Process p([](Process&) {
    make_wire();
    expect_no_standstill_without_packets(config(kXdpPort, 512));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("an af_xdp port sleeps until a frame comes") {
  Process p([](Process&) {
    make_wire();
    expect_sleep_until_a_frame_comes(config(kXdpPort));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("the XDP program is on the interface as long as a process that has it lives, and no longer") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    Process orderly([](Process&) {
      {
        const auto device = open_or_die(config(kXdpPort));
        EXPECT(has_program());
      }
      EXPECT(!has_program());
    });
    EXPECT(orderly.join() == 0);
    for (int round = 0; round < 3; ++round) {
      Process opener([&](Process& parent) {
        const auto device = open_or_die(config(kXdpPort));
        Process worker([&](Process& me) {
          const auto port = device->claim(0, 1);
          EXPECT(port != nullptr);
          parent.tell();
          while (!parent.told())
            if (receive(*port, "still")) EXPECT(mtcp::test::send(*port, "here"));
          me.tell();
          while (true) pause();
        });
        EXPECT(worker.wait());
        while (true) pause();
      });
      EXPECT(opener.wait());
      EXPECT(has_program());
      const std::string f = raw_frame("still");
      EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
      EXPECT(within(seconds(1), [&] { return kernel_receives(fd, "here"); }));
      opener.kill_hard();  // and with it its child
      EXPECT(within(seconds(2), [&] { return !has_program(); }));
      // At once again.
      Process next([&](Process&) {
        const auto device = open_or_die(config(kXdpPort));
        EXPECT(device->claim(0, 0) != nullptr);
      });
      EXPECT(next.join() == 0);
    }
  });
  CHECK(p.join() == 0);
}

TEST_CASE(
    "what another program that was killed has left on the interface is taken off, what may be in use is "
    "not") {
  Process p([](Process&) {
    make_wire();
    run("ip link set dev ours xdp obj /usr/lib/*/bpf/xsk_def_xdp_prog_5.3.o sec xdp "
        "2>/dev/null");
    EXPECT(says("ip link show dev ours", "xdp"));
    Process opener([](Process&) {
      const auto device = open_or_die(config(kXdpPort));
      EXPECT(device->claim(0, 0) != nullptr);
    });
    EXPECT(opener.join() == 0);
    EXPECT(within(seconds(2), [] { return !has_program(); }));
    run("ip link set dev ours xdp obj /usr/lib/*/bpf/xdpfilt_alw_eth.o sec xdp 2>/dev/null");
    EXPECT(refused(config(kXdpPort), "XDP program xdpfilt"));
    EXPECT(has_program());
  });
  CHECK(p.join() == 0);
}

TEST_CASE("af_xdp: an interface that cannot be used says what to do") {
  Process p([](Process&) {
    make_wire();
    auto c = config(kXdpPort);
    {
      Process user([&](Process&) {
        EXPECT(setuid(65534) == 0);
        EXPECT(refused(c, "run as root"));
      });
      EXPECT(user.join() == 0);
    }
    EXPECT(refused(config("net_af_xdp0"), "net_af_xdp0,iface=NAME"));
    EXPECT(refused(config("net_af_xdp0,iface=nosuch"), "no network interface nosuch"));
    EXPECT(refused(config("net_af_xdp0,iface=ours,xdp_prog=/x.o"), "leave xdp_prog= out"));
    run("ip link set ours down");
    EXPECT(refused(c, "sudo ip link set ours up"));
    run("ip link set ours up");
    c.queues = 2;
    EXPECT(refused(c, "set queues to 1"));
    c.queues = 0;
    run("ip link set ours mtu 9000 && ip link set peer mtu 9000");
    c.mtu = 9000;
    EXPECT(refused(c, "set mtu in [device] to 2766 or less"));
    c.mtu = 1500;
    EXPECT(refused(c, "ip link set ours mtu 1500"));
    run("ip link set ours mtu 1400 && ip link set peer mtu 1400");
    const auto device = open_or_die(c);
    EXPECT(device->claim(0, 0)->mtu() == 1400);  // the smaller of the two
  });
  CHECK(p.join() == 0);
}
