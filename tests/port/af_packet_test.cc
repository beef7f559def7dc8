// net_af_packet on a veth pair in a network namespace of the test's own, against the kernel.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

#include "stack/base/bytes.hh"
#include "stack/wire/checksum.hh"
#include "tests/port/device.hh"
#include "tests/port/wire.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

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

int start_connect() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(80);
  a.sin_addr.s_addr = htonl(0x0a4d0002);
  EXPECT(connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == -1 && errno == EINPROGRESS);
  return fd;
}

}  // namespace

TEST_CASE("frames go from the kernel to an af_packet port and back") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto before = descriptors();
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    EXPECT(port->link_up() && port->mtu() == 1500);
    EXPECT((port->mac() == MacAddress{{2, 0, 0, 0, 0, 2}}));
    EXPECT(threads() == 1 && only_hidden_descriptors_since(before));
    // More than the ring holds, so that it wraps.
    for (int i = 0; i < 3000; ++i) {
      const std::string text = "number " + std::to_string(i);
      const std::string f = raw_frame(text);
      EXPECT(::send(fd, f.data(), f.size(), 0) == static_cast<ssize_t>(f.size()));
      EXPECT(within(seconds(1), [&] { return receive(*port, text); }));
      EXPECT(mtcp::test::send(*port, text));
      EXPECT(within(seconds(1), [&] { return kernel_receives(fd, text); }));
    }
    EXPECT(port->pool().available() == port->pool().capacity());
    // A full frame both ways.
    const std::string full(1500, 'f');
    EXPECT(mtcp::test::send(*port, full) && within(seconds(1), [&] { return kernel_receives(fd, full); }));
    const std::string f = raw_frame(full);
    EXPECT(::send(fd, f.data(), f.size(), 0) == 1514 &&
           within(seconds(1), [&] { return receive(*port, full); }));
    EXPECT(port->rx_dropped() == 0);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a checksum that the kernel left to the hardware counts as good") {
  Process p([](Process&) {
    make_wire();
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    TinyTcp tcp(*port);
    const int fd = start_connect();
    Packet* syn = tcp.receive();
    EXPECT(syn != nullptr && (syn->flags & kRxL4Good) != 0);
    // It is in fact not filled in.
    const std::byte* ip = syn->data + 14;
    const std::size_t length = load_be<std::uint16_t>(ip + 2) - 20u;
    const std::uint32_t pseudo =
        partial_sum(ip + 12, 8) + sum_of_field(6) + sum_of_field(static_cast<std::uint16_t>(length));
    EXPECT(fold_sum(std::uint64_t{pseudo} + partial_sum(ip + 20, length)) != 0xffff);
    // And one that is filled in and wrong is not vouched for.
    tcp.drop(syn);
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
    close(fd);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("large packets of a kernel sender arrive as segments that fit the MTU") {
  Process p([](Process&) {
    make_wire();
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    TinyTcp tcp(*port);
    const int fd = start_connect();
    Packet* syn = tcp.receive();
    EXPECT(syn != nullptr);
    const auto isn = load_be<std::uint32_t>(syn->data + 34 + 4);
    tcp.reply(*syn, 0x12, 1000, isn + 1);
    tcp.drop(syn);
    std::string sent(1 << 20, 0);
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 2654435761u >> 13);
    std::string received;
    std::size_t written = 0;
    EXPECT(within(seconds(10), [&] {
      if (written < sent.size()) {
        const ssize_t n = ::send(fd, sent.data() + written, sent.size() - written, MSG_NOSIGNAL);
        if (n > 0) written += static_cast<std::size_t>(n);
      }
      port->service(now());
      Packet* in[32];
      const std::size_t n = port->rx(in, 32);
      for (std::size_t i = 0; i < n; ++i) {
        Packet* q = in[i];
        if (load_be<std::uint16_t>(q->data + 12) == 0x0800 && q->data[23] == std::byte{6}) {
          EXPECT(q->len <= 1514 && (q->flags & kRxL4Good) != 0);
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
    EXPECT(port->rx_dropped() == 0);
    EXPECT(port->pool().available() == port->pool().capacity());
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

TEST_CASE("an af_packet port sleeps until a frame comes") {
  Process p([](Process&) {
    make_wire();
    const int fd = packet_socket("peer");
    const auto device = open_or_die(config(kPort));
    const auto port = device->claim(0, 1);
    while (sleep_on(*port, milliseconds(50))) (void)receive(*port, "");  // the kernel's own first words
    EXPECT(!sleep_on(*port, milliseconds(300)));
    const std::string f = raw_frame("wake");
    EXPECT(::send(fd, f.data(), f.size(), 0) == 60);
    EXPECT(sleep_on(*port, seconds(1)) && receive(*port, "wake"));
    EXPECT(!sleep_on(*port, milliseconds(20)));
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
        EXPECT(refusal(c).find("cap_net_raw") != std::string::npos);
      });
      EXPECT(user.join() == 0);
    }
    run("ip link set ours down");
    EXPECT(refusal(c).find("sudo ip link set ours up") != std::string::npos);
    run("ip link set ours up");
    const auto device = open_or_die(c);
    EXPECT(device->claim(0, 0)->mtu() == 1400);  // the smaller of the two
  });
  CHECK(p.join() == 0);
}
