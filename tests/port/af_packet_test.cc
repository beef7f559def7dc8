// net_af_packet on a veth pair in a network namespace of the test's own, against the kernel.
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "stack/port/dpdk/af_packet/af_packet.hh"
#include "tests/port/exchange.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

TEST_CASE("frames go from the kernel to an af_packet port and back") {
  Process p([](Process&) {
    make_wire();
    exchange_frames(config(kPort), 3000);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("the queue of a killed process goes on where that stopped") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(config(kPort));
    for (int life = 0; life < 5; ++life) {
      const std::string text = "life " + std::to_string(life);
      const std::string f = raw_frame(text);
      Process child([&](Process& parent) {
        std::unique_ptr<Port> port;
        EXPECT(within(seconds(5), [&] { return (port = device->claim(0, 3)) != nullptr; }));
        EXPECT(port->pool().available() == port->pool().capacity());
        parent.tell();
        EXPECT(within(seconds(2), [&] { return receive(*port, text); }));
        EXPECT(mtcp::test::send(*port, text));
        Packet* lost[100];
        EXPECT(port->pool().alloc(lost, 100) == 100);
        parent.tell();
        while (true) (void)receive(*port, text);
      });
      EXPECT(child.wait());
      EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
      EXPECT(child.wait());
      EXPECT(within(seconds(2), [&] { return kernel_receives(fd, text); }));
      // It is killed in the midst of receiving.
      for (int i = 0; i < 500 + life * 37; ++i) (void)::send(fd, f.data(), f.size(), 0);
      child.kill_hard();
    }
  });
  CHECK(p.join() == 0);
}

TEST_CASE("an af_packet port without packets drops what comes") {
  Process p([](Process&) {
    make_wire();
    expect_no_standstill_without_packets(config(kPort, 512));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("an af_packet port sleeps until a frame comes") {
  Process p([](Process&) {
    make_wire();
    expect_sleep_until_a_frame_comes(config(kPort));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("an interface that cannot be used says what to do") {
  Process p([](Process&) {
    make_wire();
    run("ip link set ours mtu 1400");
    auto c = config(kPort);
    {
      Process user([&](Process&) {
        EXPECT(setuid(65534) == 0);
        EXPECT(refusal(c).find("--ambient-caps=+net_raw ") != std::string::npos);
      });
      EXPECT(user.join() == 0);
    }
    bool misconfigured = false;
    c.misconfigured = &misconfigured;
    c.mtu = 1401;
    EXPECT(refusal(c).find("mtu in [device] to 1400 or less") != std::string::npos && misconfigured);
    misconfigured = false;
    c.mtu = 1500;
    run("ip link set ours down");
    EXPECT(refusal(c).find("sudo ip link set ours up") != std::string::npos && !misconfigured);
    run("ip link set ours up");
    const auto device = open_or_die(c);
    EXPECT(device->claim(0, 0)->mtu() == 1400);  // the smaller of the two
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a packet socket's ring has room for every MTU that can be configured") {
  for (std::uint32_t mtu = 68; mtu <= 9600; ++mtu) {
    DeviceConfig c = config("net_af_packet0,iface=ours");
    c.mtu = mtu;
    const std::string arguments = dpdk::af_packet_arguments(c, 1);
    const auto value = [&](const std::string& key) { return std::stoul(arguments.substr(arguments.find("," + key + "=") + key.size() + 2)); };
    CAPTURE(mtu, arguments);
    // Where Linux puts Ethernet's header (tpacket_rcv, with 10 bytes of PACKET_VNET_HDR), which may have a VLAN's in it.
    REQUIRE(value("framesz") >= TPACKET_ALIGN(TPACKET2_HDRLEN + 16) + 10 - 14 + 18 + mtu);
    REQUIRE(value("framesz") % TPACKET_ALIGNMENT == 0);
    REQUIRE(value("blocksz") % 4096 == 0);
    REQUIRE(value("blocksz") >= value("framesz"));
    REQUIRE(value("framecnt") % (value("blocksz") / value("framesz")) == 0);
    REQUIRE(value("framecnt") >= c.rx_ring);
  }
}
