// A simulated Ethernet between stacks, on a virtual clock. What it does to frames comes from one seeded
// generator and from rules ("drop the second FIN"), so that a run can be repeated exactly.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/wire/segment.hh"
#include "tests/bare_port.hh"

namespace mtcp::sim {

using namespace mtcp::stack;

// Per direction and frame. Probabilities between 0 and 1.
struct WireOptions {
  double loss = 0;
  double duplicate = 0;
  double reorder = 0;  // such a frame is late by up to `reorder_by`
  double corrupt = 0;  // one bit behind the Ethernet header is flipped
  Duration delay = microseconds(50);
  Duration jitter{};  // uniform; frames may overtake each other
  Duration reorder_by = milliseconds(5);
  double bandwidth = 0;      // bytes per second; 0: unlimited
  std::size_t queue = 1000;  // full frames' worth that may wait for the bandwidth
};

// What a rule sees of a frame.
struct FrameInfo {
  std::size_t from = 0;      // number of the sending port
  std::uint64_t number = 0;  // frames on the wire before this one
  bool tcp = false;          // the rest is meaningful
  FlowKey key;               // local: the sender
  std::uint8_t flags = 0;
  Seq seq, ack;
  std::uint32_t len = 0;  // payload bytes
  std::uint32_t window = 0;
  std::uint32_t ts_val = 0;     // RFC 7323, if it has timestamps
  bool retransmission = false;  // nothing in it is new

  [[nodiscard]] bool has(std::uint8_t f) const { return (flags & f) != 0; }
};

using Match = bool (*)(const FrameInfo&);
inline bool is_syn(const FrameInfo& f) { return f.tcp && (f.flags & (kSyn | kAck)) == kSyn; }
inline bool is_syn_ack(const FrameInfo& f) { return f.tcp && (f.flags & (kSyn | kAck)) == (kSyn | kAck); }
inline bool is_fin(const FrameInfo& f) { return f.tcp && f.has(kFin); }
inline bool is_rst(const FrameInfo& f) { return f.tcp && f.has(kRst); }
inline bool is_data(const FrameInfo& f) { return f.tcp && f.len > 0; }
inline bool is_retransmission(const FrameInfo& f) { return f.tcp && f.retransmission; }
inline bool is_pure_ack(const FrameInfo& f) { return f.tcp && f.len == 0 && (f.flags & ~kPsh) == kAck; }

class Wire;

// One stack's end of the wire.
class SimPort final : public test::BarePort {
 public:
  SimPort(Wire& wire, std::size_t number, PacketPool& pool) : BarePort(pool), wire_(wire), number_(number) {}

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] Link link() const override { return {has_link, peers_ended}; }
  [[nodiscard]] MacAddress mac() const override {
    return MacAddress{
        {2, 0, 0, 0, static_cast<std::uint8_t>(number_ >> 8), static_cast<std::uint8_t>(number_)}};
  }
  [[nodiscard]] bool tx_checksum_offload() const override { return gathers; }
  [[nodiscard]] bool takes_external() const override { return gathers && !gathers_no_more; }

  bool has_link = true;     // false: nothing is taken, nothing comes
  bool takes_nothing = false;  // as one whose ring to send is full
  // As a device that gathers, cuts into segments and fills in checksums: before the stack is made, so restart() after it.
  bool gathers = false;
  bool gathers_no_more = false;
  std::uint64_t cut = 0;  // packets of several segments
  std::uint32_t peers_ended = 0;

 private:
  void send_as_device(const Packet& p);
  Wire& wire_;
  std::size_t number_;
};

class Wire {
 public:
  using Frame = std::vector<std::byte>;

  Wire(std::mt19937_64& random, const Time& now) : random_(random), now_(now) {}

  WireOptions options;
  // Called for each frame before chance is; true: the frame is lost.
  std::function<bool(const FrameInfo&)> drop_if;
  // Drops `count` frames from the nth (from 1) that matches.
  void drop(Match match, unsigned nth = 1, unsigned count = 1) { rules_.push_back({match, nth, count}); }
  void clear_rules() { rules_.clear(); }
  // Called for each frame that a port sends, dropped or not.
  std::function<void(const FrameInfo&)> tap;

  std::size_t add_port(MacAddress mac);
  void set_mac(std::size_t port, MacAddress mac) { ends_[port].mac = mac; }
  void send(std::size_t from, Frame frame);
  // The next frame that has arrived at the port.
  std::optional<Frame> receive(std::size_t port);
  // When the next frame arrives anywhere; kNever if none is on the way.
  [[nodiscard]] Time next_arrival() const;
  [[nodiscard]] std::uint64_t frames() const { return frames_; }
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

 private:
  struct End {
    MacAddress mac;
    std::multimap<Time, Frame> arriving;
    Time idle_at{};  // when the bandwidth is free again, for what this port sends
  };
  struct Rule {
    Match match;
    unsigned nth, count;
    unsigned seen = 0;
  };
  [[nodiscard]] bool chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(random_) < p; }
  [[nodiscard]] FrameInfo inspect(std::size_t from, const Frame& frame);
  [[nodiscard]] bool dropped_by_rule(const FrameInfo& info);
  void deliver(std::size_t from, const Frame& frame, bool queues);

  std::mt19937_64& random_;
  const Time& now_;
  std::vector<End> ends_;
  std::vector<Rule> rules_;
  std::map<std::array<std::uint8_t, sizeof(FlowKey)>, Seq> highest_;  // end of what each flow has sent
  std::uint64_t frames_ = 0, dropped_ = 0;
};

}  // namespace mtcp::sim
