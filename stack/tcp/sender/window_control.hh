// What all congestion controls share that have a window and no model of the path: slow start, the reduction of the window
// after a loss by Proportional Rate Reduction (RFC 9937), undo.
#pragma once

#include "stack/tcp/sender/congestion.hh"

namespace mtcp::stack {

class WindowControl : public CongestionControl {
 public:
  void on_ack(Connection& c, const AckSample& a, Time now) const override;
  void on_loss(Connection& c, Time now) const final;
  void on_recovered(Connection& c, Time now) const final;
  void on_timeout(Connection& c, bool first, Time now) const final;
  void on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time now) const override;
  void on_use(Connection& c, std::uint32_t flight, std::uint32_t least, Time now) const final;
  void on_sent(Connection& c, std::uint32_t bytes) const final;
  void undo(Connection& c, Time now) const final;

 protected:
  constexpr explicit WindowControl(bool needs_ecn = false) : CongestionControl(false, needs_ecn) {}
  ~WindowControl() = default;
  // The state of those that derive from this begins with it.
  struct State {
    std::uint32_t prior_cwnd = 0, prior_ssthresh = 0;  // before the reduction; ssthresh 0: nothing to undo
    std::uint32_t prr_delivered = 0, prr_out = 0, prr_flight = 0;
    std::uint32_t acked = 0;  // congestion avoidance: bytes since cwnd grew
    std::uint32_t used = 0, used_since = 0;  // bytes at most in flight since then (ms), while the window was not the limit
  };
  // RFC 5681 section 3.1: true if the window is below ssthresh.
  static bool in_slow_start(const Connection& c) { return c.hot.cwnd < c.tx.ssthresh; }
  // Slow start; returns what of `acked` is left for congestion avoidance.
  static std::uint32_t slow_start(Connection& c, std::uint32_t acked);
  static void set_ssthresh(Connection& c, std::uint32_t bytes) { c.tx.ssthresh = bytes; }
  // One segment for each window's worth of bytes.
  static void add_segment_per(Connection& c, std::uint32_t window, std::uint32_t acked);

  // `acked` bytes have arrived while the window was in full use.
  virtual void grow(Connection& c, std::uint32_t acked, const AckSample& a, Time now) const;
  // What ssthresh becomes: bytes.
  virtual std::uint32_t reduced(Connection& c, Time now) const = 0;
  // A reduction was undone, by cwnd and ssthresh; or a timeout makes all that is known of the path old.
  virtual void on_undone(Connection&, Time) const {}
  virtual void on_reset(Connection&, Time) const {}

 private:
  void reduce(Connection& c, const AckSample& a) const;
  void begin_reduction(Connection& c, Time now) const;
};

}  // namespace mtcp::stack
