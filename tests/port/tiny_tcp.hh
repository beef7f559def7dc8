// Just enough TCP to talk to the kernel at the other end of the wire.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "tests/port/device.hh"
#include "tests/port/wire.hh"

namespace mtcp::test {

using namespace mtcp::stack;

// A TCP peer of the kernel, just clever enough to be sent data.
class TinyTcp {
 public:
  explicit TinyTcp(Port& port) : port_(port) {}

  // The next TCP packet, or null within a second.
  Packet* receive() {
    Packet* p = nullptr;
    (void)within(seconds(1), [&] {
      port_.service(now());
      if (port_.rx(&p, 1) == 0) return false;
      if (load_be<std::uint16_t>(p->data + 12) == 0x0800 && p->data[23] == std::byte{6}) return true;
      drop(p);
      return false;
    });
    return p;
  }
  void drop(Packet*& p) { port_.pool().free(&p, 1), p = nullptr; }

  // Answers `to` with flags and acknowledgment number.
  void reply(Packet& to, std::uint8_t flags, std::uint32_t seq, std::uint32_t ack) {
    Packet* p = nullptr;
    EXPECT(port_.pool().alloc(&p, 1) == 1);
    const bool syn = (flags & 2) != 0;
    const std::size_t tcp = syn ? 28 : 20;
    memset(p->data, 0, 62);
    memcpy(p->data, to.data + 6, 6);
    memcpy(p->data + 6, to.data, 6);
    store_be<std::uint16_t>(p->data + 12, 0x0800);
    std::byte* ip = p->data + 14;
    ip[0] = std::byte{0x45};
    store_be<std::uint16_t>(ip + 2, static_cast<std::uint16_t>(20 + tcp));
    ip[8] = std::byte{64};
    ip[9] = std::byte{6};
    memcpy(ip + 12, to.data + 14 + 16, 4);
    memcpy(ip + 16, to.data + 14 + 12, 4);
    store(ip + 10, partial_sum(ip, 20));
    std::byte* t = ip + 20;
    memcpy(t, to.data + 14 + 20 + 2, 2);
    memcpy(t + 2, to.data + 14 + 20, 2);
    store_be<std::uint32_t>(t + 4, seq);
    store_be<std::uint32_t>(t + 8, ack);
    t[12] = std::byte(tcp / 4 << 4);
    t[13] = std::byte{flags};
    store_be<std::uint16_t>(t + 14, 0xffff);
    if (syn) {  // MSS 1460, window scale 7
      const unsigned char options[] = {2, 4, 5, 180, 1, 3, 3, 7};
      memcpy(t + 20, options, sizeof options);
    }
    const std::uint32_t pseudo =
        partial_sum(ip + 12, 8) + sum_of_field(6) + sum_of_field(static_cast<std::uint16_t>(tcp));
    store(t + 16, fold_sum(std::uint64_t{pseudo} + partial_sum(t, tcp)));
    p->len = static_cast<std::uint32_t>(34 + tcp);
    EXPECT(port_.tx(&p, 1) == 1);
  }

 private:
  static void store(std::byte* at, std::uint32_t sum) {
    const auto v = static_cast<std::uint16_t>(~sum);
    memcpy(at, &v, 2);
  }
  Port& port_;
};

inline int start_connect() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(80);
  a.sin_addr.s_addr = htonl(0x0a4d0002);
  EXPECT(connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == -1 && errno == EINPROGRESS);
  return fd;
}

// Whether the checksum of a received TCP segment is filled in, and right.
inline bool has_checksum(const Packet& p) {
  const std::byte* ip = p.data + 14;
  const std::size_t length = load_be<std::uint16_t>(ip + 2) - 20u;
  const std::uint32_t pseudo =
      partial_sum(ip + 12, 8) + sum_of_field(6) + sum_of_field(static_cast<std::uint16_t>(length));
  return fold_sum(std::uint64_t{pseudo} + partial_sum(ip + 20, length)) == 0xffff;
}

// The kernel sends a MiB over a connection to the port: what arrives must be what was sent, in frames that
// fit the MTU, none lost, and each vouched for by the port or with a checksum that is right. Returns how many
// frames there were.
inline std::size_t take_megabyte(Port& port) {
  TinyTcp tcp(port);
  const int fd = start_connect();
  Packet* syn = tcp.receive();
  EXPECT(syn != nullptr);
  const auto isn = load_be<std::uint32_t>(syn->data + 34 + 4);
  tcp.reply(*syn, 0x12, 1000, isn + 1);
  tcp.drop(syn);
  std::string sent(1 << 20, 0);
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 2654435761u >> 13);
  std::string received;
  std::size_t written = 0, frames = 0;
  EXPECT(within(seconds(10), [&] {
    if (written < sent.size()) {
      const ssize_t n = ::send(fd, sent.data() + written, sent.size() - written, MSG_NOSIGNAL);
      if (n > 0) written += static_cast<std::size_t>(n);
    }
    port.service(now());
    Packet* in[32];
    const std::size_t n = port.rx(in, 32);
    for (std::size_t i = 0; i < n; ++i) {
      Packet* q = in[i];
      if (load_be<std::uint16_t>(q->data + 12) == 0x0800 && q->data[23] == std::byte{6}) {
        ++frames;
        EXPECT(q->len <= 1514 && ((q->flags & kRxL4Good) != 0 || has_checksum(*q)));
        EXPECT(fold_sum(partial_sum(q->data + 14, 20)) == 0xffff);
        const std::size_t header = 34 + (std::to_integer<std::size_t>(q->data[46]) >> 4) * 4;
        const std::size_t end = 14u + load_be<std::uint16_t>(q->data + 16);
        const std::uint32_t offset = load_be<std::uint32_t>(q->data + 38) - (isn + 1);
        if (offset == received.size())
          received.append(reinterpret_cast<char*>(q->data) + header, end - header);
        tcp.reply(*q, 0x10, 1001, isn + 1 + static_cast<std::uint32_t>(received.size()));
      }
      tcp.drop(q);
    }
    return received.size() == sent.size();
  }));
  EXPECT(received == sent);
  EXPECT(port.status().rx_dropped == 0);
  EXPECT(port.pool().available() == port.pool().capacity());
  close(fd);
  return frames;
}

}  // namespace mtcp::test
