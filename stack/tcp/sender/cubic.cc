// CUBIC (RFC 9438), the default as in Linux.
#include <algorithm>
#include <cmath>

#include "stack/tcp/sender/controls.hh"

namespace mtcp::stack {
namespace {

constexpr float kC = 0.4F, kBeta = 0.7F;  // RFC 9438 sections 4.1 and 4.6
constexpr float kAlpha = 3 * (1 - kBeta) / (1 + kBeta);  // section 4.3

float seconds_of(Duration d) { return static_cast<float>(d.count()) * 1e-9F; }

class Cubic final : public WindowControl {
 public:
  [[nodiscard]] const char* name() const override { return "cubic"; }
  void on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time now) const override;

 private:
  // Windows in segments.
  struct CubicState : State {
    Time epoch;  // zero: congestion avoidance has not begun again
    float w_max, prior_w_max, origin, k, w_est;
    float fraction;  // of a byte that cwnd has grown
  };
  void grow(Connection& c, std::uint32_t acked, const AckSample& a, Time now) const override;
  [[nodiscard]] std::uint32_t reduced(Connection& c, Time now) const override;
  void on_undone(Connection& c, Time) const override {
    auto& s = state_of<CubicState>(c);
    s.w_max = s.prior_w_max;
    s.epoch = Time{};
  }
  // Section 4.8: after a timeout the curve begins at the window that slow start ends with.
  void on_reset(Connection& c, Time) const override {
    auto& s = state_of<CubicState>(c);
    s.w_max = 0;
    s.epoch = Time{};
  }
  static void begin_epoch(const Connection& c, CubicState& s, Time now);
  static void avoid(Connection& c, std::uint32_t acked, Time now);
};

void Cubic::grow(Connection& c, std::uint32_t acked, const AckSample&, Time now) const {
  if (in_slow_start(c)) acked = slow_start(c, acked);
  if (acked != 0) avoid(c, acked, now);
}

void Cubic::begin_epoch(const Connection& c, CubicState& s, Time now) {
  const float cwnd = static_cast<float>(c.hot.cwnd) / static_cast<float>(c.hot.mss);
  s.epoch = now;
  s.w_est = cwnd;
  s.origin = std::max(cwnd, s.w_max);
  s.k = s.w_max > cwnd ? std::cbrt((s.w_max - cwnd) / kC) : 0;
}

// Sections 4.2 to 4.5.
void Cubic::avoid(Connection& c, std::uint32_t acked, Time now) {
  auto& s = state_of<CubicState>(c);
  if (s.epoch == Time{}) begin_epoch(c, s, now);
  const float mss = c.hot.mss, cwnd = static_cast<float>(c.hot.cwnd) / mss;
  const float arrived = static_cast<float>(acked) / mss;
  const Duration rtt = std::min(c.recovery.min_rtt, c.recovery.former_min_rtt);
  const float t = seconds_of(now - s.epoch + (rtt == Duration::max() ? Duration::zero() : rtt)) - s.k;
  const float target = std::clamp(s.origin + kC * t * t * t, cwnd, 1.5F * cwnd);
  float growth = target > cwnd ? (target - cwnd) / cwnd * arrived : arrived / (100 * cwnd);
  // Section 4.3: not slower than Reno would be.
  s.w_est += (s.w_est < s.w_max ? kAlpha : 1) * arrived / cwnd;
  growth = std::max(growth, s.w_est - cwnd);
  // As Linux: half a segment for each that has arrived, at most.
  const float bytes = std::min(growth, arrived / 2) * mss + s.fraction;
  const auto whole = static_cast<std::uint32_t>(bytes);
  s.fraction = bytes - static_cast<float>(whole);
  set_cwnd(c, std::uint64_t{c.hot.cwnd} + whole);
}

std::uint32_t Cubic::reduced(Connection& c, Time) const {
  auto& s = state_of<CubicState>(c);
  const float cwnd = static_cast<float>(c.hot.cwnd) / static_cast<float>(c.hot.mss);
  s.prior_w_max = s.w_max;
  // Section 4.7: fast convergence.
  s.w_max = cwnd < s.w_max ? cwnd * (1 + kBeta) / 2 : cwnd;
  s.epoch = Time{};
  return static_cast<std::uint32_t>(static_cast<float>(c.hot.cwnd) * kBeta);
}

// Section 4.2: time in which the application sent nothing does not count.
void Cubic::on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time now) const {
  auto& s = state_of<CubicState>(c);
  if (s.epoch != Time{}) s.epoch += idle;
  WindowControl::on_idle(c, idle, restart_window, now);
}

}  // namespace

const CongestionControl& cubic() {
  static constinit const Cubic it;
  return it;
}

}  // namespace mtcp::stack
