// The other end of up to eight flows. It knows what a real peer would know (from the stack's own frames), so
// that the fuzzer only has to say how its segments differ from the right ones; and it checks what the stack
// sends.
#pragma once

#include <array>
#include <vector>

#include "tests/fuzz/frames.hh"

namespace mtcp::stack {

class WirePeer {
 public:
  static constexpr std::size_t kFlows = 8;  // 0-3 connect to our port 80, 4-7 are connected to
  static constexpr std::uint16_t kListenPort = 80, kTheirListenPort = 7000;

  struct Flow {
    std::uint16_t peer_port = 0, our_port = 0;
    bool known = false;  // a SYN of the stack has been seen
    Seq iss;             // the stack's
    Seq seq_end;         // one past the last sequence number that the stack has used
    Seq ack;             // what the stack expects next
    std::uint32_t ts_val = 0;
    std::vector<Seq>
        earlier;  // the stack's first sequence numbers in earlier connections between these ports
  };

  // What both sides write: a byte is a function of its place, so that both can be checked at any time.
  [[nodiscard]] static std::byte theirs(Seq s) {
    return static_cast<std::byte>(s.value() * 7 + (s.value() >> 8));
  }
  [[nodiscard]] static std::byte ours(std::uint32_t offset) {
    return static_cast<std::byte>(offset * 31 + (offset >> 8));
  }

  WirePeer();
  Flow& flow(std::size_t i) { return flows_[i % kFlows]; }

  // A frame with a TCP segment of a flow.
  struct Shape {
    std::uint8_t flags = 0;
    Seq seq, ack;
    std::uint16_t window = 0;
    std::size_t payload = 0;
    Bytes options;  // any bytes; padded
  };
  [[nodiscard]] static Bytes segment(const Flow& f, const Shape& shape);
  [[nodiscard]] Bytes syn(std::size_t i, std::uint8_t mix);
  [[nodiscard]] static Bytes plain_ack(const Flow& f, std::uint16_t window);

  // Checks a frame of the stack, and learns from it. Returns true if it wants an ARP reply.
  bool observe(const Bytes& frame);

 private:
  Flow* find(std::uint16_t our_port, std::uint16_t peer_port, bool syn);
  void observe_tcp(std::span<const std::byte> segment);
  static bool is_late(const Flow& f, Seq seq, std::span<const std::byte> payload);
  std::array<Flow, kFlows> flows_{};
};

}  // namespace mtcp::stack
