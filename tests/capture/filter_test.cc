#include "stack/capture/filter.hh"

#include <linux/filter.h>
#include <pcap/pcap.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <string>
#include <vector>

using namespace mtcp::stack;

namespace {

using Program = std::vector<FilterInstruction>;
using Bytes = std::vector<std::byte>;

constexpr FilterInstruction kTakeAll{BPF_RET | BPF_K, 0, 0, 1};

Program compile(const std::string& expression, bool optimize = true) {
  pcap_t* handle = pcap_open_dead(DLT_EN10MB, 65535);
  bpf_program program{};
  INFO(expression);
  REQUIRE(pcap_compile(handle, &program, expression.c_str(), optimize ? 1 : 0, PCAP_NETMASK_UNKNOWN) == 0);
  Program out;
  for (unsigned i = 0; i < program.bf_len; ++i)
    out.push_back({program.bf_insns[i].code, program.bf_insns[i].jt, program.bf_insns[i].jf, program.bf_insns[i].k});
  pcap_freecode(&program);
  pcap_close(handle);
  return out;
}

// libpcap's own machine is what ours is compared with.
bool pcap_accepts(const Program& program, const Bytes& packet) {
  static_assert(sizeof(bpf_insn) == sizeof(FilterInstruction));
  const auto n = static_cast<unsigned>(packet.size());
  return bpf_filter(reinterpret_cast<const bpf_insn*>(program.data()), reinterpret_cast<const unsigned char*>(packet.data()), n, n) != 0;
}

// Frames whose fields are often what filters ask for.
Bytes random_frame(std::mt19937_64& random) {
  static constexpr unsigned char kTypes[][2] = {{0x08, 0x00}, {0x08, 0x06}, {0x86, 0xdd}, {0x81, 0x00}};
  Bytes frame(random() % 120);
  for (std::byte& b : frame) b = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 3);
  const auto put = [&frame](std::size_t at, unsigned v) {
    if (at < frame.size()) frame[at] = static_cast<std::byte>(v);
  };
  const auto& type = kTypes[random() % 4];
  put(12, type[0]);
  put(13, type[1]);
  put(14, type[0] == 0x86 ? 0x60 : 0x45 + random() % 3);
  put(23, random() % 2 == 0 ? 6 : 17);
  put(20, random() % 2 == 0 ? 6 : 0);
  put(21, 0);
  put(35, 80);
  put(37, 80);
  return frame;
}

}  // namespace

TEST_CASE("a packet filter takes what libpcap's takes") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (const char* expression :
       {"tcp", "tcp port 80", "host 10.9.0.1 and not arp", "ip6 and tcp dst port 80", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "greater 60", "less 50",
        "vlan and tcp", "ip[8] > 1 and ip[6:2] & 0x1fff = 0", "ether[0] & 1 = 0 and ip[2:2] > 10", "net 1.0.0.0/8 or portrange 70-90", "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
        "(ip[8] * 3 + 1) % 2 = 0", "ip[9] / 2 = 3", "ip[1] << 2 = 4 or ip[1] ^ 3 = 0 or -ip[1] = 0", "ip proto 6 and len > 20", "ip multicast or icmp6"}) {
    for (const bool optimize : {true, false}) {
      const Program program = compile(expression, optimize);
      const auto filter = PacketFilter::check(program);
      INFO(expression);
      REQUIRE(filter.has_value());
      for (int i = 0; i < 2000; ++i) {
        const Bytes frame = random_frame(random);
        CHECK(filter->accepts(frame) == pcap_accepts(program, frame));
      }
    }
  }
}

TEST_CASE("a packet filter without instructions takes everything") {
  const auto filter = PacketFilter::check({});
  REQUIRE(filter.has_value());
  CHECK(filter->accepts(Bytes(3)));
}

TEST_CASE("a packet filter that is not sound is refused") {
  const auto refused = [](const Program& program) { return !PacketFilter::check(program).has_value(); };
  using I = FilterInstruction;
  CHECK(refused({I{BPF_LD | BPF_IMM, 0, 0, 1}}));                                     // runs off its end
  CHECK(refused({I{BPF_JMP | BPF_JA, 0, 0, 1}, kTakeAll}));                           // jumps behind it
  CHECK(refused({I{BPF_JMP | BPF_JA, 0, 0, 0xffffffff}, kTakeAll}));                  // or back
  CHECK(refused({I{BPF_JMP | BPF_JEQ, 1, 0, 1}, kTakeAll}));
  CHECK(refused({I{BPF_JMP | BPF_JEQ, 0, 200, 1}, kTakeAll}));
  CHECK(refused({I{BPF_LD | BPF_MEM, 0, 0, 16}, kTakeAll}));                          // beyond its memory
  CHECK(refused({I{BPF_ST, 0, 0, 16}, kTakeAll}));
  CHECK(refused({I{BPF_STX, 0, 0, 0xffffffff}, kTakeAll}));
  CHECK(refused({I{BPF_ALU | BPF_DIV | BPF_K, 0, 0, 0}, kTakeAll}));                  // divides by nothing
  CHECK(refused({I{BPF_ALU | BPF_MOD | BPF_K, 0, 0, 0}, kTakeAll}));
  CHECK(refused({I{BPF_ALU | BPF_LSH | BPF_K, 0, 0, 32}, kTakeAll}));
  CHECK(refused({I{0xff, 0, 0, 0}, kTakeAll}));                                       // unknown
  CHECK(refused({I{BPF_ALU | 0xb0, 0, 0, 1}, kTakeAll}));
  CHECK(refused({I{0x100 | BPF_RET, 0, 0, 0}}));
  CHECK(refused(Program(PacketFilter::kMost + 1, kTakeAll)));
  CHECK_FALSE(refused(Program(PacketFilter::kMost, kTakeAll)));
}

TEST_CASE("a packet filter stays within the packet and itself, whatever it is") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  static constexpr std::uint16_t kCodes[] = {
      BPF_LD | BPF_W | BPF_ABS, BPF_LD | BPF_H | BPF_IND, BPF_LD | BPF_B | BPF_ABS, BPF_LD | BPF_MEM, BPF_LDX | BPF_B | BPF_MSH, BPF_LDX | BPF_MEM, BPF_LD | BPF_W | BPF_LEN,
      BPF_ST, BPF_STX, BPF_ALU | BPF_ADD | BPF_X, BPF_ALU | BPF_DIV | BPF_X, BPF_ALU | BPF_MOD | BPF_X, BPF_ALU | BPF_LSH | BPF_X, BPF_ALU | BPF_NEG,
      BPF_JMP | BPF_JGT | BPF_X, BPF_JMP | BPF_JSET | BPF_K, BPF_JMP | BPF_JA, BPF_MISC | BPF_TAX, BPF_MISC | BPF_TXA, BPF_RET | BPF_A};
  int sound = 0;
  for (int round = 0; round < 200'000; ++round) {
    Program program(1 + random() % 12);
    for (FilterInstruction& i : program)
      i = {random() % 50 == 0 ? static_cast<std::uint16_t>(random()) : kCodes[random() % std::size(kCodes)], static_cast<std::uint8_t>(random() % 4),
           static_cast<std::uint8_t>(random() % 4), static_cast<std::uint32_t>(random() % 8 == 0 ? random() : random() % 20)};
    program.push_back(kTakeAll);
    const auto filter = PacketFilter::check(program);
    if (!filter.has_value()) continue;
    ++sound;
    const Bytes frame = random_frame(random);
    (void)filter->accepts(frame);
  }
  CHECK(sound > 1000);
}
