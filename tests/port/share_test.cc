// The programs that share an interface with the kernel, XDP's and the classifier, packet by packet: what they give to the stack, and what they leave. The
// kernel runs it on what it is given (BPF_PROG_TEST_RUN); whole programs on such an interface: tests/e2e/suite_share.py.
#include <sys/resource.h>

#include <catch2/catch.hpp>

#include <array>
#include <cstring>
#include <vector>

#include "stack/base/bytes.hh"
#include "stack/port/dpdk/interface/bpf_calls.hh"
#include "stack/port/dpdk/af_xdp/xdp_program.hh"
#include "stack/port/dpdk/share/held_ports.hh"
#include "stack/port/dpdk/share/shared_ports.hh"
#include "tests/port/share_packets.hh"
#include "tests/port/wire.hh"

using namespace mtcp::stack;
using namespace mtcp::stack::dpdk;
using namespace mtcp::test;

namespace {

constexpr std::uint8_t kSyn = 2, kAck = 16;
const IpAddress kOurs = IpAddress::v4(127, 0, 0, 2), kPeer = IpAddress::v4(127, 0, 0, 3);
IpAddress v6(std::uint8_t last) {
  IpAddress a;
  a.bytes[0] = 0xfd;
  a.bytes[15] = last;
  return a;
}

class Shared {
 public:
  explicit Shared(bool classifies) : classifies_(classifies), sockets_(create_map({BPF_MAP_TYPE_CPUMAP, 4, 1, 0, "test"})) {
    const std::uint32_t packets = 64;  // in the place of a socket: what goes there has been redirected
    EXPECT(sockets_ && put(sockets_, 0, &packets));
    ports_ = SharedPorts::create(3);
    EXPECT(ports_ != nullptr);
    ports_->add(std::vector{kOurs, v6(2)});
    program_ = std::make_unique<Descriptor>(classifies ? load_classifier_for_some(*ports_) : load_for_some(sockets_, *ports_));
    EXPECT(*program_);
    ports_->join(0);
    ports_->join(1);
  }
  SharedPorts& ports() { return *ports_; }
  [[nodiscard]] bool classifies() const { return classifies_; }

  // Whether the stack gets it, without a tag; if not, the kernel must, as it is.
  bool takes(Bytes packet) const {
    bpf_attr a{};
    Bytes out(packet.size() + 4);
    a.test.data_out = reinterpret_cast<std::uintptr_t>(out.data());
    a.test.data_size_out = static_cast<std::uint32_t>(out.size());
    a.test.prog_fd = program_->number();
    a.test.data_in = reinterpret_cast<std::uintptr_t>(packet.data());
    a.test.data_size_in = static_cast<std::uint32_t>(packet.size());
    EXPECT(bpf(BPF_PROG_TEST_RUN, a) == 0);
    const std::uint32_t pass = classifies_ ? UINT32_MAX : std::uint32_t{XDP_PASS}, take = classifies_ ? 0 : std::uint32_t{XDP_REDIRECT};
    EXPECT(a.test.retval == take || a.test.retval == pass);
    const bool taken = a.test.retval == take;
    if (taken && classifies_) {
      const std::array tag{std::byte{0x88}, std::byte{0xa8}, std::byte{0x0f}, std::byte{0xff}};
      packet.insert(packet.begin() + 12, tag.begin(), tag.end());
    } else if (taken && load_be<std::uint16_t>(&packet[12]) == 0x8100) packet.erase(packet.begin() + 12, packet.begin() + 16);
    out.resize(a.test.data_size_out);
    EXPECT(out == packet);
    return taken;
  }
  std::uint32_t nanoseconds(const Bytes& packet) const {
    bpf_attr a{};
    a.test.prog_fd = program_->number();
    a.test.data_in = reinterpret_cast<std::uintptr_t>(packet.data());
    a.test.data_size_in = static_cast<std::uint32_t>(packet.size());
    a.test.repeat = 1'000'000;
    EXPECT(bpf(BPF_PROG_TEST_RUN, a) == 0);
    return a.test.duration;
  }
  // A connection of this stack's, with the peer that takes_segment() sends from.
  void add_flow(std::uint32_t stack, const Endpoint& local, const Endpoint& remote = {kPeer, 5000}) {
    ports_->add_flow(stack, number_of(local), remote);
  }
  std::uint32_t number_of(const Endpoint& local) const { return static_cast<std::uint32_t>(ports_->index_of(local.address)) * MTCP_SHARE_PORTS + local.port; }
  bool takes_segment(std::uint16_t to, std::uint8_t flags) const {
    return takes(frame(ip(kPeer, kOurs, 6, tcp(5000, to, flags))));
  }

 private:
  const bool classifies_;
  Descriptor sockets_;
  std::unique_ptr<SharedPorts> ports_;
  std::unique_ptr<Descriptor> program_;
};

// In a namespace of its own, because the program asks the kernel about its connections.
template <typename Body>
int apart(Body body) {
  int failures = 0;
  for (const bool classifies : {false, true}) {
    Process p([&](Process&) {
      EXPECT(unshare(CLONE_NEWNET) == 0);
      run("ip link set lo up");
      Shared shared(classifies);
      body(shared);
    });
    failures += p.join() == 0 ? 0 : 1;
  }
  return failures;
}

}  // namespace

TEST_CASE("shared with the kernel: a listener's port takes what opens connections, and all else to it") {
  CHECK(apart([](Shared& s) {
          EXPECT(!s.takes_segment(80, kSyn) && !s.takes_segment(80, kAck));
          s.ports().set_listener(0, {kOurs, 80}, true);
          EXPECT(s.takes_segment(80, kSyn) && s.takes_segment(80, kAck) && s.takes_segment(80, kSyn | kAck));
          EXPECT(!s.takes_segment(81, kSyn) && !s.takes_segment(81, kAck));
          EXPECT(!s.takes(frame(ip(kPeer, kPeer, 6, tcp(5000, 80, kSyn)))));
          s.ports().set_listener(0, {kOurs, 80}, false);
          EXPECT(!s.takes_segment(80, kSyn) && !s.takes_segment(80, kAck));
        }) == 0);
}

TEST_CASE("shared with the kernel: the port of a connection takes its segments, and no new connection") {
  CHECK(apart([](Shared& s) {
          s.add_flow(0, {kOurs, 40000});
          EXPECT(s.takes_segment(40000, kAck) && s.takes_segment(40000, kSyn | kAck));
          EXPECT(!s.takes_segment(40000, kSyn));
        }) == 0);
}

TEST_CASE("shared with the kernel: what comes from others to the port of a connection is the kernel's, which may have given it to NAT") {
  CHECK(apart([](Shared& s) {
          const auto from = [&](const Endpoint& remote) { return s.takes(frame(ip(remote.address, kOurs, 6, tcp(remote.port, 40000, kAck)))); };
          const auto of_others = [&] {
            int taken = 0;
            for (std::uint8_t host = 1; host <= 20; ++host)
              for (std::uint16_t port = 400; port < 450; ++port) taken += from({IpAddress::v4(192, 0, 2, host), port}) ? 1 : 0;
            return taken;
          };
          s.add_flow(0, {kOurs, 40000}, {kPeer, 443});
          EXPECT(from({kPeer, 443}) && !from({kPeer, 444}) && of_others() <= 1);
          s.add_flow(1, {kOurs, 40000}, {kPeer, 444});
          EXPECT(from({kPeer, 443}) && from({kPeer, 444}) && of_others() <= 5);
          s.ports().forget_flows(0, s.number_of({kOurs, 40000}));
          EXPECT(from({kPeer, 444}) && of_others() <= 5);
          // With many they can't be told apart any more; when all are gone, so is that.
          for (std::uint16_t port = 1000; port < 1100; ++port) s.add_flow(0, {kOurs, 40000}, {kPeer, port});
          EXPECT(of_others() > 900);
          s.ports().forget_flows(0, s.number_of({kOurs, 40000}));
          s.ports().leave(1);
          s.add_flow(0, {kOurs, 40000}, {kPeer, 443});
          EXPECT(from({kPeer, 443}) && !from({kPeer, 444}) && of_others() <= 1);
        }) == 0);
}

TEST_CASE("shared with the kernel: a port at which connections wait for a stack takes their segments, and leaves new ones to the kernel") {
  CHECK(apart([](Shared& s) {
          s.ports().keep(80, true);
          EXPECT(s.takes_segment(80, kAck) && !s.takes_segment(80, kSyn) && !s.takes_segment(81, kAck) && !s.takes_segment(80 + 64, kAck));
          EXPECT(!s.takes(frame(ip(kPeer, kPeer, 6, tcp(5000, 80, kAck)))));
          s.ports().leave(0);  // whoever they waited at may be gone
          s.ports().leave(1);
          EXPECT(s.takes_segment(80, kAck));
          s.ports().keep(80, false);
          EXPECT(!s.takes_segment(80, kAck));
        }) == 0);
}

TEST_CASE("shared with the kernel: a listener on any address has those that are the stack's") {
  CHECK(apart([](Shared& s) {
          s.ports().set_listener(0, {IpAddress::any_v6(), 80}, true);
          EXPECT(s.takes_segment(80, kSyn) && s.takes(frame(ip(v6(1), v6(2), 6, tcp(5000, 80, kSyn)))));
          EXPECT(!s.takes(frame(ip(v6(1), v6(3), 6, tcp(5000, 80, kSyn)))));
          s.ports().set_listener(0, {IpAddress::any_v4(), 80}, false);
          EXPECT(!s.takes_segment(80, kSyn) && s.takes(frame(ip(v6(1), v6(2), 6, tcp(5000, 80, kSyn)))));
        }) == 0);
}

TEST_CASE("shared with the kernel: a listener on :: that is for IPv6 only leaves the port's IPv4 to the kernel, or to another listener") {
  CHECK(apart([](Shared& s) {
          s.ports().set_listener(0, {IpAddress::any_v6(), 80}, true, true);
          EXPECT(!s.takes_segment(80, kSyn) && s.takes(frame(ip(v6(1), v6(2), 6, tcp(5000, 80, kSyn)))));
          s.ports().set_listener(0, {IpAddress::any_v4(), 80}, true);
          s.ports().set_listener(0, {IpAddress::any_v6(), 80}, false, true);
          EXPECT(s.takes_segment(80, kSyn) && !s.takes(frame(ip(v6(1), v6(2), 6, tcp(5000, 80, kSyn)))));
        }) == 0);
}

TEST_CASE("shared with the kernel: who is given the maps changes the same ports") {
  CHECK(apart([](Shared& s) {
          const auto& maps = s.ports().maps();
          const auto given = SharedPorts::adopt(maps, s.ports().room());
          EXPECT(given != nullptr && given->addresses() == s.ports().addresses());
          given->set_listener(1, {kOurs, 80}, true);
          EXPECT(s.takes_segment(80, kSyn) && s.ports().owned({kOurs, 80}));
          EXPECT(SharedPorts::adopt(maps, s.ports().room() + 1) == nullptr);  // there is no more of it
          EXPECT(SharedPorts::adopt(std::array{maps[1], maps[1]}, 100) == nullptr);
          EXPECT(SharedPorts::adopt(std::span(maps).first(1), 1) == nullptr);
        }) == 0);
}

TEST_CASE("shared with the kernel: what a peer opens that is not answered over this interface is the kernel's, until routes change") {
  CHECK(apart([](Shared& s) {
          const auto opens = [&](const IpAddress& peer) {
            return s.takes(frame(ip(peer, peer.is_v4() ? kOurs : v6(2), 6, tcp(5000, 80, kSyn))));
          };
          s.ports().set_listener(0, {IpAddress::any_v6(), 80}, true);
          s.ports().leave_opens_of(kPeer);
          s.ports().leave_opens_of(v6(1));
          EXPECT(!opens(kPeer) && !opens(v6(1)) && s.takes_segment(80, kAck));
          EXPECT(opens(IpAddress::v4(kPeer.as_v4() + 1)) && opens(v6(5)) && opens(IpAddress::any_v4()));
          s.ports().forget_left();
          EXPECT(opens(kPeer) && opens(v6(1)));
        }) == 0);
}

TEST_CASE("shared with the kernel: an address that comes later takes part, as long as there is room") {
  CHECK(apart([](Shared& s) {
          s.ports().set_listener(0, {kPeer, 80}, true);
          EXPECT(!s.takes(frame(ip(kOurs, kPeer, 6, tcp(5000, 80, kSyn)))));
          s.ports().add(std::vector{v6(2), kPeer, v6(4)});
          EXPECT(s.ports().addresses() == 3);
          EXPECT(!s.takes(frame(ip(kOurs, kPeer, 6, tcp(5000, 80, kSyn)))));
          s.ports().set_listener(0, {kPeer, 80}, true);
          EXPECT(s.takes(frame(ip(kOurs, kPeer, 6, tcp(5000, 80, kSyn)))));
          s.ports().set_listener(0, {v6(4), 80}, true);
          EXPECT(!s.takes(frame(ip(v6(1), v6(4), 6, tcp(5000, 80, kSyn)))));
          EXPECT(s.ports().is_first(0) && !s.ports().is_first(1));
          s.ports().leave(0);
          EXPECT(s.ports().is_first(1));
        }) == 0);
}

TEST_CASE("shared with the kernel: UDP, ARP, fragments, tagged and short frames stay the kernel's") {
  CHECK(apart([](Shared& s) {
          s.ports().set_listener(0, {kOurs, 80}, true);
          const Bytes syn = tcp(5000, 80, kSyn);
          EXPECT(s.takes(frame(ip(kPeer, kOurs, 6, syn))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 17, syn))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 6, syn), 0x0806)));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 6, syn, 0x2000))) && !s.takes(frame(ip(kPeer, kOurs, 6, syn, 5))));
          EXPECT(s.takes(frame(ip(kPeer, kOurs, 6, syn, 0x4000))));  // DF
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 6, syn), 0, 5)));
          // VLAN 0 is none, and the rest a priority; the kernel has taken a tag off before there is a classifier.
          for (const int priority : {0, 0x6000}) EXPECT(s.classifies() || s.takes(frame(ip(kPeer, kOurs, 6, syn), 0, priority)));
          for (std::size_t n = s.classifies() ? 34 : 14; n < 54; ++n) {  // the kernel gives a classifier no less
            Bytes cut = frame(ip(kPeer, kOurs, 6, syn));
            cut.resize(n);
            EXPECT(!s.takes(cut));
          }
        }) == 0);
}

TEST_CASE("shared with the kernel: of a connection's fragments the first is the stack's, which drops it, so that the kernel resets nothing") {
  CHECK(apart([](Shared& s) {
          constexpr std::uint16_t kMore = 0x2000, kBehind = kMore | 3;
          const Bytes ack = tcp(5000, 80, kAck), syn = tcp(5000, 80, kSyn), tiny(ack.begin(), ack.begin() + 8);
          s.ports().set_listener(0, {IpAddress::any_v6(), 80}, true);
          EXPECT(s.takes(frame(ip(kPeer, kOurs, 6, ack, kMore))) && s.takes(frame(ip(kPeer, kOurs, 6, tiny, kMore))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 6, ack, kBehind))) && !s.takes(frame(ip(kPeer, kOurs, 6, ack, 3))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 6, syn, kMore))));  // the kernel listens, too
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 6, tcp(5000, 81, kAck), kMore))) && !s.takes(frame(ip(kPeer, kOurs, 17, ack, kMore))));
          const auto v6_with = [](std::uint8_t first, const Bytes& headers, const Bytes& inside) {
            Bytes b = headers;
            b.insert(b.end(), inside.begin(), inside.end());
            return frame(ip(v6(1), v6(2), first, b));
          };
          const auto fragment = [](std::uint8_t next, std::uint16_t offset_and_more) {
            Bytes b(8);
            b[0] = std::byte{next};
            store_be<std::uint16_t>(&b[2], offset_and_more);
            return b;
          };
          EXPECT(s.takes(v6_with(44, fragment(6, 1), ack)) && !s.takes(v6_with(44, fragment(6, 1), syn)));
          EXPECT(!s.takes(v6_with(44, fragment(6, 0x19), ack)) && !s.takes(v6_with(44, fragment(6, 0x18), ack)));
          EXPECT(!s.takes(v6_with(44, fragment(17, 1), ack)));
          EXPECT(s.takes(v6_with(44, fragment(6, 0), ack)) && s.takes(v6_with(44, fragment(6, 0), syn)));  // RFC 6946: whole
        }) == 0);
}

TEST_CASE("shared with the kernel: extension headers of IPv6 are stepped over") {
  CHECK(apart([](Shared& s) {
          s.ports().set_listener(0, {v6(2), 80}, true);
          const auto behind = [&s](std::vector<std::uint8_t> kinds, std::uint8_t last, std::uint16_t port) {
            Bytes b;
            for (std::size_t i = 0; i < kinds.size(); ++i) {
              const std::size_t units = i % 3;  // of 8 bytes, beyond the first
              Bytes header(8 * (units + 1));
              header[0] = std::byte{i + 1 < kinds.size() ? kinds[i + 1] : last};
              header[1] = std::byte{static_cast<std::uint8_t>(units)};
              b.insert(b.end(), header.begin(), header.end());
            }
            const Bytes segment = tcp(5000, port, kSyn);
            b.insert(b.end(), segment.begin(), segment.end());
            return s.takes(frame(ip(v6(1), v6(2), kinds[0], b)));
          };
          EXPECT(behind({0}, 6, 80) && behind({60}, 6, 80) && behind({43}, 6, 80) && behind({0, 60, 43, 60}, 6, 80));
          EXPECT(!behind({0}, 6, 81) && !behind({0}, 17, 80) && !behind({0, 60}, 59, 80));
          EXPECT(!behind({0, 60, 60, 60, 60, 60}, 6, 80));  // more than there is sense in
        }) == 0);
}

TEST_CASE("shared with the kernel: ICMP errors about the stack's connections are the stack's, others and echo are not") {
  CHECK(apart([](Shared& s) {
          s.add_flow(0, {kOurs, 40000}, {kPeer, 80});
          s.add_flow(0, {v6(2), 40000}, {v6(1), 80});
          const Bytes ours = ip(kOurs, kPeer, 6, tcp(40000, 80, kAck)), others = ip(kOurs, kPeer, 6, tcp(40001, 80, kAck));
          EXPECT(s.takes(frame(ip(kPeer, kOurs, 1, icmp(3, ours)))) && s.takes(frame(ip(kPeer, kOurs, 1, icmp(11, ours)))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 1, icmp(3, others)))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 1, icmp(8, ours)))) && !s.takes(frame(ip(kPeer, kOurs, 1, icmp(5, ours)))));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 1, icmp(3, ip(kOurs, kPeer, 17, tcp(40000, 80, 0)))))));
          const Bytes ours6 = ip(v6(2), v6(1), 6, tcp(40000, 80, kAck));
          EXPECT(s.takes(frame(ip(v6(1), v6(2), 58, icmp(2, ours6)))));  // packet too big
          EXPECT(!s.takes(frame(ip(v6(1), v6(2), 58, icmp(135, ours6)))));
        }) == 0);
}

TEST_CASE("shared with the kernel: a connection that the kernel has stays the kernel's, whatever becomes of its port") {
  CHECK(apart([](Shared& s) {
          const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
          const auto at = [](const IpAddress& a, std::uint16_t port) {
            sockaddr_in in{};
            in.sin_family = AF_INET;
            in.sin_port = htons(port);
            in.sin_addr.s_addr = htonl(a.as_v4());
            return in;
          };
          const sockaddr_in here = at(kOurs, 80), there = at(kPeer, 5000);
          EXPECT(bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) == 0 && listen(listener, 5) == 0);
          EXPECT(bind(client, reinterpret_cast<const sockaddr*>(&there), sizeof there) == 0);
          EXPECT(connect(client, reinterpret_cast<const sockaddr*>(&here), sizeof here) == 0);
          s.ports().set_listener(0, {kOurs, 80}, true);
          EXPECT(!s.takes_segment(80, kAck));  // of 5000
          EXPECT(s.takes(frame(ip(kPeer, kOurs, 6, tcp(5001, 80, kAck)))) && s.takes_segment(80, kSyn));
          EXPECT(!s.takes(frame(ip(kPeer, kOurs, 1, icmp(3, ip(kOurs, kPeer, 6, tcp(80, 5000, kAck)))))));
        }) == 0);
}

TEST_CASE("shared with the kernel: a port is the stack's as long as one of several stacks has it") {
  CHECK(apart([](Shared& s) {
          s.ports().set_listener(0, {kOurs, 80}, true);
          s.ports().set_listener(1, {kOurs, 80}, true);
          s.ports().leave(0);
          EXPECT(s.takes_segment(80, kSyn));
          s.ports().leave(1);
          EXPECT(!s.takes_segment(80, kSyn) && !s.takes_segment(80, kAck));
        }) == 0);
}

TEST_CASE("shared with the kernel: what a killed process had is withdrawn by another that looks, or by its successor") {
  const bool successor = GENERATE(false, true);
  CHECK(apart([=](Shared& s) {
          for (int life = 0; life < 3; ++life) {
            const pid_t child = fork();
            if (child == 0) {
              s.ports().join(2);
              s.ports().set_listener(2, {kOurs, 80}, true);
              s.add_flow(2, {kOurs, 40000});
              _exit(0);  // as if killed: nothing is given back
            }
            EXPECT(waitpid(child, nullptr, 0) == child);
            EXPECT(s.takes_segment(80, kSyn) && s.takes_segment(40000, kAck));
            if (successor)
              s.ports().join(2), s.ports().leave(2);
            else
              for (int i = 0; i < MTCP_SHARE_STACKS; ++i) s.ports().look_for_the_dead(static_cast<std::uint32_t>(i));
            EXPECT(!s.takes_segment(80, kSyn) && !s.takes_segment(40000, kAck));
          }
          s.ports().set_listener(0, {kOurs, 80}, true);
          for (int i = 0; i < MTCP_SHARE_STACKS; ++i) s.ports().look_for_the_dead(static_cast<std::uint32_t>(i));
          EXPECT(s.takes_segment(80, kSyn));  // of the living
        }) == 0);
}

TEST_CASE("shared with the kernel: nanoseconds for a packet", "[.bench]") {
  CHECK(apart([](Shared& s) {
          if (!s.classifies()) s.ports().set_listener(0, {kOurs, 80}, true);  // what a classifier has taken is another frame the next time
          const auto time = [&](const char* what, const Bytes& packet) { printf("%-10s %-40s %u ns\n", s.classifies() ? "classifier" : "XDP", what, s.nanoseconds(packet)); };
          time("a segment of the stack's", frame(ip(kPeer, kOurs, 6, tcp(5000, 80, kAck))));
          time("a SYN for the stack", frame(ip(kPeer, kOurs, 6, tcp(5000, 80, kSyn))));
          time("a segment of the kernel's", frame(ip(kPeer, kOurs, 6, tcp(5000, 81, kAck))));
          time("a datagram", frame(ip(kPeer, kOurs, 17, tcp(5000, 80, 0))));
        }) == 0);
}

TEST_CASE("the stacks of a process hold ports with a quarter of its descriptors together") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit few{.rlim_cur = 256, .rlim_max = before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  {
    HeldPorts first(HeldPorts::Tell{}), second(HeldPorts::Tell{});
    const auto port = [](int i) { return Endpoint{IpAddress::v4(127, 0, 0, 9), static_cast<std::uint16_t>(21000 + i)}; };
    for (int i = 0; i < 40; ++i) CHECK(first.hold(port(i)));
    CHECK(first.held() == 40);
    CHECK_FALSE(second.hold(port(0)));  // the kernel gives it to one
    for (int i = 40; i < 80; ++i) CHECK(second.hold(port(i)));
    CHECK(second.held() == 24);
    for (int i = 0; i < 40; ++i) first.release(port(i));
    for (int i = 80; i < 100; ++i) CHECK(second.hold(port(i)));
    CHECK(second.held() == 44);
  }
  HeldPorts third(HeldPorts::Tell{});
  for (int i = 0; i < 64; ++i) CHECK(third.hold({IpAddress::v4(127, 0, 0, 9), static_cast<std::uint16_t>(21000 + i)}));
  CHECK(third.held() == 64);
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
}
