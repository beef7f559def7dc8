// An af_packet port and the kernel's offloads: checksums that somebody else fills in, packets of many
// segments.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <catch2/catch.hpp>

#include "tests/port/exchange.hh"
#include "tests/port/segments.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

// From now on this process's kernel knows no PACKET_VNET_HDR.
void forbid_offload() {
  constexpr auto at = [](auto member) { return static_cast<std::uint32_t>(member); };
  sock_filter program[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at(offsetof(seccomp_data, nr))},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 5, SYS_setsockopt},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at(offsetof(seccomp_data, args[1]))},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SOL_PACKET},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, at(offsetof(seccomp_data, args[2]))},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, PACKET_VNET_HDR},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOPROTOOPT},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  const sock_fprog filter{sizeof program / sizeof *program, program};
  EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

// Hands over all of them, however often it takes.
void send_all(Port& port, std::vector<Packet*> packets) {
  EXPECT(within(seconds(5), [&] {
    packets.erase(packets.begin(),
                  packets.begin() + static_cast<std::ptrdiff_t>(port.tx(packets.data(), packets.size())));
    return packets.empty();
  }));
}

bool checksums_are_right(const std::byte* frame, std::size_t length) {
  const std::byte* ip = frame + 14;
  const std::size_t tcp = length - 34;
  const std::uint64_t pseudo = std::uint64_t{partial_sum(ip + 12, 8)} + sum_of_field(6) +
                               sum_of_field(static_cast<std::uint16_t>(tcp));
  return load_be<std::uint16_t>(ip + 2) == length - 14 && sum_is_good(partial_sum(ip, 20)) &&
         sum_is_good(pseudo + partial_sum(ip + 20, tcp));
}

}  // namespace

TEST_CASE("a checksum that the kernel left to the hardware counts as good, a wrong one does not") {
  Process p([](Process&) {
    make_wire();
    const auto device = open_or_die(config(kPort));
    expect_checksums_vouched_for(*device->claim(0, 1));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("large packets of a kernel sender arrive as segments that fit the MTU") {
  Process p([](Process&) {
    make_wire();
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    EXPECT(take_megabyte(*port) > 700);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("segments of a flow reach a kernel peer's socket whole, many at a time") {
  const bool offload = GENERATE(true, false);
  Process p([=](Process&) {
    make_wire();
    if (!offload)
      run("ethtool -K ours tx off tso off gso off > /dev/null && ethtool -K peer tx off tso off gso off gro "
          "off > /dev/null");
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    EXPECT(port->tx_checksum_offload());
    TinyTcp tcp(*port);
    const int fd = start_connect();
    Packet* syn = tcp.receive();
    EXPECT(syn != nullptr);
    Segments segments(port->pool(), true, 1001);
    memcpy(segments.to.bytes.data(), syn->data + 6, 6);
    segments.port = load_be<std::uint16_t>(syn->data + 34);
    segments.ack = load_be<std::uint32_t>(syn->data + 38) + 1;
    tcp.reply(*syn, 0x12, 1000, segments.ack);
    tcp.drop(syn);
    std::uint32_t received = 0;
    const std::uint32_t all = 1 << 20;
    std::array<unsigned char, 65536> buffer;
    EXPECT(within(seconds(10), [&] {
      // Half of the window that the kernel gives at first, so that nothing is lost.
      std::vector<Packet*> burst;
      while (burst.size() < 20 && segments.seq() - 1001 < all) burst.push_back(segments.next(1448));
      send_all(*port, burst);
      const Time end = now() + seconds(1);
      while (received < segments.seq() - 1001 && now() < end) {
        const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
        for (ssize_t i = 0; i < n; ++i, ++received)
          EXPECT(std::byte{buffer[static_cast<std::size_t>(i)]} == Segments::byte_at(1001 + received));
        (void)mtcp::test::receive(*port, "");  // ACKs
      }
      return received >= all;
    }));
    EXPECT(port->status().tx_merged > 10 && port->status().tx_dropped == 0);
    EXPECT(port->pool().available() == port->pool().capacity());
  });
  CHECK(p.join() == 0);
}

TEST_CASE("where the interface cuts nothing itself, the kernel does: as they were, with their checksums") {
  Process p([](Process&) {
    make_wire();
    run("ethtool -K ours tx off tso off gso off > /dev/null");
    const int fd = packet_socket("peer", ETH_P_IP);
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    Segments segments(port->pool());
    std::uint32_t seq = segments.seq();
    std::vector<Packet*> burst;
    for (int i = 0; i < 20; ++i) burst.push_back(segments.next(i < 19 ? 700 : 33, i < 19 ? 0x10 : 0x19));
    burst.push_back(segments.next(0, 0x14));  // alone, and without data
    send_all(*port, burst);
    EXPECT(port->status().tx_merged == 1);
    for (int i = 0; i < 21; ++i) {
      const std::size_t payload = i < 19 ? 700 : i == 19 ? 33 : 0;
      std::array<std::byte, 2048> frame;
      ssize_t n = 0;
      EXPECT(within(seconds(1), [&] { return (n = ::recv(fd, frame.data(), frame.size(), 0)) > 0; }));
      EXPECT(n == static_cast<ssize_t>(66 + payload) &&
             checksums_are_right(frame.data(), static_cast<std::size_t>(n)));
      EXPECT(load_be<std::uint32_t>(&frame[38]) == seq);
      EXPECT(frame[47] == std::byte(i < 19 ? 0x10 : i == 19 ? 0x19 : 0x14));
      for (std::size_t k = 0; k < payload; ++k) EXPECT(frame[66 + k] == Segments::byte_at(seq++));
    }
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a kernel without PACKET_VNET_HDR is given frames as they are, with the checksums of the stack") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer", ETH_P_IP);
    forbid_offload();
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    EXPECT(!port->tx_checksum_offload());
    Segments segments(port->pool());
    std::vector<Packet*> burst;
    for (int i = 0; i < 20; ++i) {
      burst.push_back(segments.next(100));
      burst.back()->flags = 0;
    }
    send_all(*port, burst);
    EXPECT(port->status().tx_merged == 0 && port->status().tx_dropped == 0);
    for (int i = 0; i < 20; ++i) {
      std::array<std::byte, 2048> frame;
      EXPECT(within(seconds(1), [&] { return ::recv(fd, frame.data(), frame.size(), 0) == 166; }));
    }
  });
  CHECK(p.join() == 0);
}

TEST_CASE("behind a slow link a full port is not asked again at once, and takes more when there is room") {
  Process p([](Process&) {
    make_wire();
    run("tc qdisc add dev ours root tbf rate 8mbit burst 70k limit 100m");
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    Segments segments(port->pool());
    EXPECT(!port->tx_state().congested && port->max_sleep() == Duration::max());
    Packet* rest = nullptr;
    for (int i = 0; rest == nullptr && i < 4000; ++i) {
      Packet* q = segments.next(1400);
      if (port->tx(&q, 1) == 0) rest = q;
    }
    EXPECT(rest != nullptr && port->tx_state().congested && port->max_sleep() == milliseconds(1));
    EXPECT(within(seconds(2), [&] {
      port->service(now());
      return port->tx(&rest, 1) == 1;
    }));
    EXPECT(!port->tx_state().congested && port->max_sleep() == Duration::max() && port->status().tx_dropped == 0);
  });
  CHECK(p.join() == 0);
}
