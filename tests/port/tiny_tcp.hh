// A TCP peer of the kernel, just clever enough to be sent data.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "stack/base/bytes.hh"
#include "stack/port/port.hh"
#include "stack/wire/checksum.hh"
#include "tests/port/process.hh"

namespace mtcp::test {

class TinyTcp {
 public:
  explicit TinyTcp(stack::Port& port) : port_(port) {}

  // The next TCP packet, or null within a second.
  stack::Packet* receive() {
    stack::Packet* p = nullptr;
    (void)within(stack::seconds(1), [&] {
      port_.service(now());
      if (port_.rx(&p, 1) == 0) return false;
      if (stack::load_be<std::uint16_t>(p->data + 12) == 0x0800 && p->data[23] == std::byte{6}) return true;
      drop(p);
      return false;
    });
    return p;
  }
  void drop(stack::Packet*& p) { port_.pool().free(&p, 1), p = nullptr; }

  // Answers `to` with flags and acknowledgment number.
  void reply(stack::Packet& to, std::uint8_t flags, std::uint32_t seq, std::uint32_t ack) {
    stack::Packet* p = nullptr;
    EXPECT(port_.pool().alloc(&p, 1) == 1);
    const bool syn = (flags & 2) != 0;
    const std::size_t tcp = syn ? 28 : 20;
    memset(p->data, 0, 62);
    memcpy(p->data, to.data + 6, 6);
    memcpy(p->data + 6, to.data, 6);
    stack::store_be<std::uint16_t>(p->data + 12, 0x0800);
    std::byte* ip = p->data + 14;
    ip[0] = std::byte{0x45};
    stack::store_be<std::uint16_t>(ip + 2, static_cast<std::uint16_t>(20 + tcp));
    ip[8] = std::byte{64};
    ip[9] = std::byte{6};
    memcpy(ip + 12, to.data + 14 + 16, 4);
    memcpy(ip + 16, to.data + 14 + 12, 4);
    store(ip + 10, stack::partial_sum(ip, 20));
    std::byte* t = ip + 20;
    memcpy(t, to.data + 14 + 20 + 2, 2);
    memcpy(t + 2, to.data + 14 + 20, 2);
    stack::store_be<std::uint32_t>(t + 4, seq);
    stack::store_be<std::uint32_t>(t + 8, ack);
    t[12] = std::byte(tcp / 4 << 4);
    t[13] = std::byte{flags};
    stack::store_be<std::uint16_t>(t + 14, 0xffff);
    if (syn) {  // MSS 1460, window scale 7
      const unsigned char options[] = {2, 4, 5, 180, 1, 3, 3, 7};
      memcpy(t + 20, options, sizeof options);
    }
    const std::uint32_t pseudo = stack::partial_sum(ip + 12, 8) + stack::sum_of_field(6) +
                                 stack::sum_of_field(static_cast<std::uint16_t>(tcp));
    store(t + 16, stack::fold_sum(std::uint64_t{pseudo} + stack::partial_sum(t, tcp)));
    p->len = static_cast<std::uint32_t>(34 + tcp);
    EXPECT(port_.tx(&p, 1) == 1);
  }

 private:
  static void store(std::byte* at, std::uint32_t sum) {
    const auto v = static_cast<std::uint16_t>(~sum);
    memcpy(at, &v, 2);
  }
  stack::Port& port_;
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

}  // namespace mtcp::test
