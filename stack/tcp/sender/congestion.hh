// Congestion control as the rest of TCP sees it. What is lost, and what is sent again, is the sender's business; how much
// may be in the network is decided here: hot.cwnd, tx.ssthresh and the pacing rate are the outputs, and nothing else writes them. The objects live for ever and hold
// nothing: what one keeps of a connection is in Connection::congestion, and in Pacing::model where it has a model of the path.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "stack/base/time.hh"
#include "stack/tcp/connection.hh"

namespace mtcp::stack {

inline constexpr Duration kNoSample = Duration(-1);

// What an ACK has told.
struct AckSample {
  std::uint32_t acked = 0;          // bytes that it acknowledges
  std::uint32_t delivered = 0;      // bytes of which it is known now that they have arrived, in order or not
  std::uint32_t lost = 0;           // bytes that were found lost
  std::uint32_t flight_before = 0;  // bytes in the network before it
  Duration rtt = kNoSample;         // of the oldest packet that it acknowledges, for the RTO
  Duration latest_rtt = kNoSample;  // of the newest that has arrived
  bool advanced = false;            // SND.UNA has moved
  bool sacked = false;              // something was sacked that was not before
  bool original_arrived = false;    // something sent once, before the timeout, has arrived (F-RTO)
  bool duplicate = false;           // without SACK: a duplicate ACK
  bool dsack = false;               // the peer has got something twice
  bool reordered = false;           // something came later than what was sent after it ...
  Seq reordered_from;               // ... and this is the lowest of that
  Seq sacked_before;                // end of the highest packet that was sacked before this ACK; SND.UNA if none was
};

class CongestionControl {
 public:
  CongestionControl(const CongestionControl&) = delete;
  CongestionControl& operator=(const CongestionControl&) = delete;

  // As in net.ipv4.tcp_congestion_control; never null.
  [[nodiscard]] virtual const char* name() const = 0;
  // It is told of the rate at which the path delivers (Pacing::delivery, a sample with each ACK) and sets that at which
  // packets leave (Pacing::set_rate). Connection::pacing is there for it.
  [[nodiscard]] bool has_model() const { return has_model_; }
  // All its packets are ECN-capable, and it is asked for whatever the configuration says (RFC 8257).
  [[nodiscard]] bool needs_ecn() const { return needs_ecn_; }
  // The connection begins, or changes to this one with the window that it has; its state is zero.
  virtual void start(Connection& c, std::uint32_t cwnd, Time now) const;
  // After the sender has drawn its conclusions from an ACK, in every phase.
  virtual void on_ack(Connection& c, const AckSample& a, Time now) const = 0;
  // Something is lost, or ECN says that it soon would be: the phase becomes recovery or cwr, once per round trip.
  virtual void on_loss(Connection& c, Time now) const = 0;
  // What the phase was for is over.
  virtual void on_recovered(Connection& c, Time now) const = 0;
  // A timeout; `first`: of this data. What is not taken for lost is in c.hot.flight().
  virtual void on_timeout(Connection& c, bool first, Time now) const = 0;
  // Nothing was in the network for `idle`, longer than the RTO, and now there will be (RFC 5681 section 4.1).
  virtual void on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time now) const;
  // Something was sent while the window was larger than `least`, and now so much is in flight: who has long used less of it
  // than there is no longer knows that the path bears it (RFC 2861, RFC 7661).
  virtual void on_use(Connection& c, std::uint32_t flight, std::uint32_t least, Time now) const;
  // Nothing is in flight, and now something will be. Only with has_model().
  virtual void on_flight_begins(Connection& c, Time now) const;
  // Bytes were sent, first or again, in a phase beyond disorder.
  virtual void on_sent(Connection& c, std::uint32_t bytes) const;
  // The reduction was a mistake.
  virtual void undo(Connection& c, Time now) const = 0;
  // It begins where an earlier connection has learned how much the path takes: bytes.
  static void recall_ssthresh(Connection& c, std::uint32_t bytes) { c.tx.ssthresh = std::max(bytes, 2U * c.hot.mss); }
  // The segments have become smaller.
  void on_smaller_segments(Connection& c) const { set_cwnd(c, c.hot.cwnd); }

 protected:
  constexpr explicit CongestionControl(bool has_model = false, bool needs_ecn = false)
      : has_model_(has_model), needs_ecn_(needs_ecn) {}
  ~CongestionControl() = default;
  // At least a segment, at most 1 GB.
  static void set_cwnd(Connection& c, std::uint64_t bytes);
  template <typename State>
  static State& state_of(Connection& c) {
    static_assert(sizeof(State) <= Connection::kCongestionState && alignof(State) <= 8);
    static_assert(std::is_trivially_copyable_v<State> && std::is_trivially_destructible_v<State>);
    return *reinterpret_cast<State*>(c.congestion.data());
  }

 private:
  const bool has_model_;
  const bool needs_ecn_;
};

// The one with this name, or null.
[[nodiscard]] const CongestionControl* find_congestion_control(std::string_view name);
[[nodiscard]] std::span<const CongestionControl* const> all_congestion_controls();
// The same, or CUBIC.
[[nodiscard]] const CongestionControl& configured_congestion_control(std::string_view name);
// What a connection is to use: by its options, else `configured`.
[[nodiscard]] inline const CongestionControl& choose_congestion_control(const SocketOptions& o, const CongestionControl& configured) {
  if (o.congestion == 0) [[likely]] return configured;
  const auto all = all_congestion_controls();
  return o.congestion <= all.size() ? *all[o.congestion - 1U] : configured;
}

}  // namespace mtcp::stack
