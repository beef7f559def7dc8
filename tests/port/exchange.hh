// What every port on an interface of the kernel must do with a kernel peer, in a process of its own with a wire.
#pragma once

#include "tests/port/tiny_tcp.hh"

namespace mtcp::test {

// `n` frames there and back, one after the other, so many that the rings wrap, and one of full size.
inline void exchange_frames(const DeviceConfig& wanted, int n) {
  const int fd = packet_socket("peer");
  const auto before = descriptors();
  const auto device = open_or_die(wanted);
  EXPECT(device->queues() == 1);
  const auto port = device->claim(0, 1);
  EXPECT(port->link_up() && port->mtu() == 1500);
  EXPECT((port->mac() == MacAddress{{2, 0, 0, 0, 0, 2}}));
  EXPECT(threads() == 1 && only_hidden_descriptors_since(before));
  for (int i = 0; i < n; ++i) {
    const std::string text = "number " + std::to_string(i);
    const std::string f = raw_frame(text);
    EXPECT(::send(fd, f.data(), f.size(), 0) == static_cast<ssize_t>(f.size()));
    EXPECT(within(seconds(1), [&] { return receive(*port, text); }));
    EXPECT(mtcp::test::send(*port, text));
    EXPECT(within(seconds(1), [&] { return kernel_receives(fd, text); }));
  }
  EXPECT(port->pool().available() == port->pool().capacity());
  const std::string full(1500, 'f');
  EXPECT(mtcp::test::send(*port, full) && within(seconds(1), [&] { return kernel_receives(fd, full); }));
  const std::string f = raw_frame(full);
  EXPECT(::send(fd, f.data(), f.size(), 0) == 1514 && within(seconds(1), [&] { return receive(*port, full); }));
  EXPECT(port->status().rx_dropped == 0);
}

inline void expect_sleep_until_a_frame_comes(const DeviceConfig& wanted) {
  const int fd = packet_socket("peer");
  const auto device = open_or_die(wanted);
  const auto port = device->claim(0, 1);
  while (sleep_on(*port, milliseconds(50))) (void)receive(*port, "");  // the kernel's own first words
  EXPECT(!sleep_on(*port, milliseconds(300)));
  const std::string f = raw_frame("wake");
  EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
  EXPECT(sleep_on(*port, seconds(1)) && receive(*port, "wake"));
  EXPECT(!sleep_on(*port, milliseconds(20)));
}

// With no packet left, what comes is dropped and counted, and the port can sleep; afterwards it goes on.
inline void expect_no_standstill_without_packets(const DeviceConfig& wanted) {
  const int fd = packet_socket("peer");
  const auto device = open_or_die(wanted);
  const auto port = device->claim(0, 1);
  while (sleep_on(*port, milliseconds(50))) (void)receive(*port, "");  // the kernel's own first words
  std::vector<Packet*> all(port->pool().capacity());
  all.resize(port->pool().alloc(all.data(), all.size()));
  const std::uint64_t before = port->status().rx_dropped;
  const std::string f = raw_frame("too much");
  for (int i = 0; i < 300; ++i) EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
  EXPECT(within(seconds(2), [&] {
    Packet* in[32];
    EXPECT(port->rx(in, 32) == 0);
    return port->status().rx_dropped == before + 300;
  }));
  EXPECT(!sleep_on(*port, milliseconds(50)));
  port->pool().free(all.data(), all.size());
  const std::string g = raw_frame("enough");
  EXPECT(::send(fd, g.data(), g.size(), 0) == 60);
  EXPECT(within(seconds(1), [&] { return receive(*port, "enough"); }));
}

// A checksum that the kernel left to the hardware counts as good; one that is filled in and wrong is not vouched for.
inline void expect_checksums_vouched_for(Port& port) {
  TinyTcp tcp(port);
  const int fd = start_connect();
  Packet* syn = tcp.receive();
  EXPECT(syn != nullptr && (syn->flags & kRxL4Good) != 0);
  EXPECT(!has_checksum(*syn));  // it is in fact not filled in
  tcp.drop(syn);
  close(fd);
  const int raw = packet_socket("peer");
  std::string f = raw_frame("");
  f.replace(12, 2, std::string("\x08\0", 2));
  f[14] = 0x45, f[17] = 40, f[22] = 64, f[23] = 6;
  EXPECT(::send(raw, f.data(), f.size(), 0) == 60);
  Packet* bad = nullptr;
  EXPECT(within(seconds(1), [&] {
    bad = tcp.receive();
    return bad == nullptr || bad->len == 60;
  }));
  EXPECT(bad != nullptr && (bad->flags & kRxL4Good) == 0);
}

}  // namespace mtcp::test
