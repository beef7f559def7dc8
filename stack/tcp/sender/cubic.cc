// CUBIC (RFC 9438), the default as in Linux; its first slow start ends by HyStart++ (RFC 9406), which also looks at trains of ACKs.
#include <algorithm>
#include <cmath>

#include "stack/tcp/sender/controls.hh"
#include "stack/tcp/sender/pacing.hh"

namespace mtcp::stack {
namespace {

constexpr float kC = 0.4F, kBeta = 0.7F;  // RFC 9438 sections 4.1 and 4.6
constexpr float kAlpha = 3 * (1 - kBeta) / (1 + kBeta);  // section 4.3

// RFC 9406 section 4.3.
constexpr Duration kLeastRise = milliseconds(4), kMostRise = milliseconds(16);
constexpr std::uint8_t kSamples = 8, kConservativeRounds = 5;
constexpr std::uint32_t kConservativeDivisor = 4;
constexpr std::uint32_t kFromSegments = 16;  // as Linux (hystart_low_window): before that there is nothing to learn
constexpr std::uint32_t kNoReturn = 1;  // as a baseline: no round trip is shorter
// Of trains of ACKs, as Linux (hystart_ack_delta, hystart_ack_delay); but a quarter of a round trip is a gap in any case: over a short
// path a few bursts would make a train.
constexpr Duration kApart = milliseconds(2), kMostCushion = milliseconds(1);
constexpr std::int64_t kCushionBytes = 262'144;

std::uint32_t micros(Duration d) {
  return static_cast<std::uint32_t>(std::min<std::int64_t>(std::chrono::duration_cast<microseconds>(d).count(), UINT32_MAX - 1));
}

// Of differences.
std::uint32_t clock_of(Time t) { return static_cast<std::uint32_t>(std::chrono::duration_cast<microseconds>(t.time_since_epoch()).count()); }

float seconds_of(Duration d) { return static_cast<float>(d.count()) * 1e-9F; }

class Cubic final : public WindowControl {
 public:
  [[nodiscard]] const char* name() const override { return "cubic"; }
  void on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time now) const override;

 private:
  // Windows in segments.
  struct Curve {
    Time epoch;  // zero: congestion avoidance has not begun again
    float w_max, prior_w_max, origin, k, w_est;
    float fraction;  // of a byte that cwnd has grown
  };
  // Round trips in microseconds; 0: none.
  struct FirstSlowStart {
    std::uint32_t round_rtt, last_rtt;  // the least of this round and of the one before
    std::uint32_t baseline;             // the least when growth became conservative; 0: it has not
    Seq round_end;
    std::uint32_t round_start, train_end;  // clock_of(): the round's first ACK, and the last that has followed closely
    std::uint8_t samples, rounds;       // of this round; of conservative growth
    bool begun;
  };
  // One after the other: zero both at the start and where the one follows the other.
  struct CubicState : State {
    union {
      Curve curve;
      FirstSlowStart first;
    };
  };
  static_assert(sizeof(FirstSlowStart) <= sizeof(Curve));
  static bool in_first_slow_start(const Connection& c) { return c.tx.ssthresh == UINT32_MAX; }
  static std::uint32_t start_slowly(Connection& c, std::uint32_t acked, const AckSample& a, Time now);
  static void end_round(Connection& c, FirstSlowStart& f, Time now);
  static bool is_long_train(const Connection& c, FirstSlowStart& f, Time now);
  static void leave_first_slow_start(Connection& c) { state_of<CubicState>(c).curve = {}; }
  static void resume_first_slow_start(Connection& c, Time now);
  void grow(Connection& c, std::uint32_t acked, const AckSample& a, Time now) const override;
  [[nodiscard]] std::uint32_t reduced(Connection& c, Time now) const override;
  void on_undone(Connection& c, Time now) const override {
    if (in_first_slow_start(c)) return resume_first_slow_start(c, now);
    auto& s = state_of<CubicState>(c).curve;
    s.w_max = s.prior_w_max;
    s.epoch = Time{};
  }
  // Section 4.8: after a timeout the curve begins at the window that slow start ends with.
  void on_reset(Connection& c, Time) const override {
    auto& s = state_of<CubicState>(c).curve;
    s.w_max = 0;
    s.epoch = Time{};
  }
  static void begin_epoch(const Connection& c, Curve& s, Time now);
  static void avoid(Connection& c, std::uint32_t acked, Time now);
};

void Cubic::grow(Connection& c, std::uint32_t acked, const AckSample& a, Time now) const {
  if (in_slow_start(c)) {
    const bool watched = in_first_slow_start(c) && c.hot.cwnd >= kFromSegments * c.hot.mss;
    acked = watched ? start_slowly(c, acked, a, now) : slow_start(c, acked);
  }
  if (acked != 0) avoid(c, acked, now);
}

// RFC 9406 section 4.2: once the round trips become longer, a queue has begun to grow, and the window grows more slowly;
// after five such rounds it is large enough. If they become shorter again, it was chance.
std::uint32_t Cubic::start_slowly(Connection& c, std::uint32_t acked, const AckSample& a, Time now) {
  auto& f = state_of<CubicState>(c).first;
  if (!f.begun || at_or_after(c.hot.snd_una, f.round_end)) end_round(c, f, now);
  if (!in_slow_start(c)) return acked;  // that was the last one
  const Duration rtt = a.latest_rtt != kNoSample ? a.latest_rtt : a.rtt;
  if (rtt != kNoSample) {
    f.round_rtt = f.round_rtt == 0 ? std::max(micros(rtt), 1U) : std::min(f.round_rtt, std::max(micros(rtt), 1U));
    if (f.samples != UINT8_MAX) ++f.samples;
  }
  if (f.samples >= kSamples && f.baseline == 0 && f.last_rtt != 0) {
    const std::uint32_t rise = std::clamp(f.last_rtt / 8, micros(kLeastRise), micros(kMostRise));
    if (f.round_rtt >= f.last_rtt + rise) {
      f.baseline = f.round_rtt;
      f.rounds = 0;
    }
  } else if (f.samples >= kSamples && f.baseline != 0 && f.round_rtt < f.baseline) {
    f.baseline = 0;
  }
  if (f.baseline == 0 && is_long_train(c, f, now)) {
    f.baseline = kNoReturn;
    f.rounds = 0;
  }
  return slow_start(c, f.baseline == 0 ? acked : std::max(acked / kConservativeDivisor, 1U));
}

// As Linux (hystart_detect & 1): ACKs that have followed each other closely for half a round trip are those of data that takes as long
// to pass, so the window fills the path by now. Over a short path the round trips show that late: by then there is four times as much.
bool Cubic::is_long_train(const Connection& c, FirstSlowStart& f, Time now) {
  const std::uint32_t clock = clock_of(now);
  const Duration least = std::min(c.recovery.min_rtt, c.recovery.former_min_rtt);
  if (clock - f.train_end > micros(std::min<Duration>(kApart, least / 4))) return false;
  f.train_end = clock;
  // For what several segments in one frame take, at twice this rate.
  const Duration cushion = std::min<Duration>(kMostCushion, c.tx.srtt * kCushionBytes / 2 / std::max<std::uint32_t>(c.hot.cwnd, 1));
  const bool paced = c.pacing != nullptr && c.pacing->paced;  // what leaves so is spread over a round trip anyway
  return clock - f.round_start > micros(paced ? least + cushion : (least + cushion) / 2);
}

// Back in it, after a reduction that was needless. What it had learned is gone, so it goes on from the least round trip of the connection: a
// queue that stands by now is noticed, however often that happens.
void Cubic::resume_first_slow_start(Connection& c, Time now) {
  leave_first_slow_start(c);
  const Duration least = std::min(c.recovery.min_rtt, c.recovery.former_min_rtt);
  if (least == Duration::max()) return;
  auto& f = state_of<CubicState>(c).first;
  f.begun = true;
  f.last_rtt = std::max(micros(least), 1U);
  f.round_end = c.hot.snd_nxt;
  f.round_start = f.train_end = clock_of(now);
}

void Cubic::end_round(Connection& c, FirstSlowStart& f, Time now) {
  f.last_rtt = f.begun && f.samples != 0 ? f.round_rtt : 0;
  f.round_rtt = 0;
  f.samples = 0;
  f.begun = true;
  f.round_end = c.hot.snd_nxt;
  f.round_start = f.train_end = clock_of(now);
  if (f.baseline == 0 || ++f.rounds < kConservativeRounds) return;
  set_ssthresh(c, c.hot.cwnd);
  leave_first_slow_start(c);
}

void Cubic::begin_epoch(const Connection& c, Curve& s, Time now) {
  const float cwnd = static_cast<float>(c.hot.cwnd) / static_cast<float>(c.hot.mss);
  s.epoch = now;
  s.w_est = cwnd;
  s.origin = std::max(cwnd, s.w_max);
  s.k = s.w_max > cwnd ? std::cbrt((s.w_max - cwnd) / kC) : 0;
}

// Sections 4.2 to 4.5.
void Cubic::avoid(Connection& c, std::uint32_t acked, Time now) {
  auto& s = state_of<CubicState>(c).curve;
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
  if (in_first_slow_start(c)) leave_first_slow_start(c);
  auto& s = state_of<CubicState>(c).curve;
  const float cwnd = static_cast<float>(c.hot.cwnd) / static_cast<float>(c.hot.mss);
  s.prior_w_max = s.w_max;
  // Section 4.7: fast convergence.
  s.w_max = cwnd < s.w_max ? cwnd * (1 + kBeta) / 2 : cwnd;
  s.epoch = Time{};
  return static_cast<std::uint32_t>(static_cast<float>(c.hot.cwnd) * kBeta);
}

// Section 4.2: time in which the application sent nothing does not count.
void Cubic::on_idle(Connection& c, Duration idle, std::uint32_t restart_window, Time now) const {
  if (in_first_slow_start(c)) leave_first_slow_start(c);
  auto& s = state_of<CubicState>(c).curve;
  if (s.epoch != Time{}) s.epoch += idle;
  WindowControl::on_idle(c, idle, restart_window, now);
}

}  // namespace

const CongestionControl& cubic() {
  static constinit const Cubic it;
  return it;
}

}  // namespace mtcp::stack
