// BBR, version 1 as in Linux (draft-cardwell-iccrg-bbr-congestion-control-00): a model of the path, the highest rate at which
// it has delivered lately and its shortest round trip, instead of a window that grows until something is lost.
#include "stack/tcp/sender/bbr.hh"

#include <algorithm>
#include <cmath>

#include "stack/tcp/sender/controls.hh"

namespace mtcp::stack {
namespace {

using Mode = BbrState::Mode;

constexpr float kHighGain = 2.885F;           // 2/ln 2: the rate doubles in each round trip
constexpr float kDrainGain = 1 / 2.885F;
constexpr float kCwndGain = 2;
constexpr float kCycleGains[] = {1.25F, 0.75F, 1, 1, 1, 1, 1, 1};
constexpr std::uint32_t kCycle = 8;
constexpr float kFullGrowth = 1.25F;          // the pipe is full when three rounds have not brought so much more
constexpr unsigned kFullRounds = 3;
constexpr std::uint32_t kRateRounds = 10;     // that the maximum is of
constexpr Duration kMinRttSpan = seconds(10), kProbeRttTime = milliseconds(200);
constexpr std::uint32_t kLeastWindow = 4;     // segments
constexpr double kMargin = 0.99;              // paced a little below the rate, so that no queue grows
// A policer: losses of a fifth, at about the same rate, in two intervals of 4 to 16 rounds; believed for 48.
constexpr unsigned kPolicedRounds = 4, kPolicedUse = 48;
constexpr float kPolicedLoss = 50.F / 256, kPolicedAlike = 1.F / 8, kPolicedDifference = 500;
// How much more than the rate says ACKs have told at once, in the last 5 to 10 rounds; for 100 ms at most.
constexpr unsigned kAggregationRounds = 5;
constexpr std::uint32_t kAggregationMost = 0xfffff;  // segments
constexpr Duration kAggregationTime = milliseconds(100);

double in_seconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }

class Bbr final : public CongestionControl {
 public:
  constexpr Bbr() : CongestionControl(true) {}
  [[nodiscard]] const char* name() const override { return "bbr"; }
  void start(Connection& c, std::uint32_t cwnd, Time now) const override;
  void on_ack(Connection& c, const AckSample& a, Time now) const override;
  void on_loss(Connection& c, Time) const override { save_cwnd(c); }
  void on_recovered(Connection&, Time) const override {}
  void on_timeout(Connection& c, bool first, Time now) const override;
  void on_flight_begins(Connection& c, Time now) const override;
  void undo(Connection& c, Time now) const override;

 private:
  static BbrState& state(Connection& c) { return bbr_state(*c.pacing); }
  static void save_cwnd(Connection& c);
  static void set_rate(Connection& c, double rate, float gain);
  static void set_rate_from_rtt(Connection& c);
  static std::uint64_t window_for(Connection& c, double rate, float gain);
  static double in_flight_later(Connection& c, std::uint32_t flight, Time now);
  static void update_rate(Connection& c, BbrState& s, const RateSample& r);
  static void update_aggregation(Connection& c, BbrState& s, const RateSample& r);
  static void update_cycle(Connection& c, BbrState& s, const RateSample& r, std::uint32_t prior_flight, Time now);
  static void check_full(BbrState& s, const RateSample& r);
  static void check_drained(Connection& c, BbrState& s, Time now);
  static void update_min_rtt(Connection& c, BbrState& s, const AckSample& a, Time now);
  static void check_probe_rtt_over(Connection& c, BbrState& s, Time now);
  static void sample_policer(Connection& c, BbrState& s, bool lost, bool app_limited);
  static void begin_cycle(Connection& c, BbrState& s);
  static void forget_policer(Connection& c, BbrState& s);
  static void begin_policer_interval(Connection& c, BbrState& s);
  static bool recover(Connection& c, BbrState& s, const RateSample& r, std::uint64_t& cwnd);
  static void update_cwnd(Connection& c, BbrState& s, const RateSample& r);
};

double rate_of(const BbrState& s) { return s.use_policed ? s.policed_rate : s.rates.best(); }

void Bbr::start(Connection& c, std::uint32_t cwnd, Time now) const {
  CongestionControl::start(c, cwnd, now);
  auto& s = *new (c.pacing->model.data()) BbrState;
  c.tx.ssthresh = UINT32_MAX;
  s.min_rtt = std::min(c.recovery.min_rtt, c.recovery.former_min_rtt);
  s.min_rtt_at = s.epoch_at = now;
  s.next_round = c.pacing->delivery.delivered();
  set_rate_from_rtt(c);
  begin_policer_interval(c, s);
}

// --- outputs

void Bbr::set_rate_from_rtt(Connection& c) {
  Duration rtt = milliseconds(1);
  if (c.tx.srtt > Duration::zero()) {
    rtt = c.tx.srtt;
    state(c).has_rtt = true;
  }
  c.pacing->set_rate(static_cast<std::uint64_t>(static_cast<double>(c.hot.cwnd) / in_seconds(rtt) * kHighGain));
}

void Bbr::set_rate(Connection& c, double rate, float gain) {
  auto& s = state(c);
  if (!s.has_rtt && c.tx.srtt > Duration::zero()) set_rate_from_rtt(c);
  const auto paced = static_cast<std::uint64_t>(rate * static_cast<double>(gain) * kMargin);
  if (s.full || paced > c.pacing->rate) c.pacing->set_rate(paced);
}

// Of what fills the path `gain` times, and of what is held back at both ends of it meanwhile.
std::uint64_t Bbr::window_for(Connection& c, double rate, float gain) {
  auto& s = state(c);
  const std::uint32_t mss = c.hot.mss;
  if (s.min_rtt == Duration::max()) return 10ULL * mss;
  const double bdp = rate * in_seconds(s.min_rtt) * static_cast<double>(gain);
  auto segments = static_cast<std::uint64_t>(std::ceil(bdp / mss)) + 3ULL * (c.pacing->burst(mss) / mss);
  segments += segments % 2;
  if (s.mode == Mode::probe_rate && s.cycle == 0) segments += 2;
  return segments * mss;
}

// What will be in the network when the next packet may leave.
double Bbr::in_flight_later(Connection& c, std::uint32_t flight, Time now) {
  auto& s = state(c);
  double later = flight;
  if (s.pacing_gain > 1) later += c.pacing->burst(c.hot.mss);
  if (c.pacing->next > now) later -= rate_of(s) * in_seconds(c.pacing->next - now);
  return std::max(later, 0.0);
}

void Bbr::save_cwnd(Connection& c) {
  auto& s = state(c);
  const std::uint32_t cwnd = c.hot.cwnd;
  s.prior_cwnd = s.prior_phase < Phase::recovery && s.mode != Mode::probe_rtt ? cwnd : std::max(s.prior_cwnd, cwnd);
}

// For the first round of a recovery as much leaves as arrives; after it all that the window was before. True: that is it.
bool Bbr::recover(Connection& c, BbrState& s, const RateSample& r, std::uint64_t& cwnd) {
  const auto& h = c.hot;
  const Phase former = std::exchange(s.prior_phase, h.phase);
  if (r.newly_lost != 0) cwnd = cwnd > r.newly_lost + h.mss ? cwnd - r.newly_lost : h.mss;
  if (h.phase == Phase::recovery && former != Phase::recovery) {
    s.conserve = true;
    s.next_round = c.pacing->delivery.delivered();
    cwnd = std::uint64_t{h.flight()} + r.newly_delivered;
  } else if (former >= Phase::recovery && h.phase < Phase::recovery) {
    cwnd = std::max<std::uint64_t>(cwnd, s.prior_cwnd);
    s.conserve = false;
  }
  if (!s.conserve) return false;
  cwnd = std::max(cwnd, std::uint64_t{h.flight()} + r.newly_delivered);
  return true;
}

void Bbr::update_cwnd(Connection& c, BbrState& s, const RateSample& r) {
  const std::uint32_t mss = c.hot.mss, least = kLeastWindow * mss;
  std::uint64_t cwnd = c.hot.cwnd;
  if (r.newly_delivered != 0 && !recover(c, s, r, cwnd)) {
    std::uint64_t target = window_for(c, rate_of(s), s.cwnd_gain);
    if (s.full) {
      const double most = rate_of(s) * in_seconds(kAggregationTime);
      target += static_cast<std::uint64_t>(std::min<double>(std::max(s.extra[0], s.extra[1]), most));
      cwnd = std::min(cwnd + r.newly_delivered, target);
    } else if (cwnd < target || c.pacing->delivery.delivered() < 10ULL * mss) {
      cwnd += r.newly_delivered;
    }
    cwnd = std::max<std::uint64_t>(cwnd, least);
  }
  if (s.mode == Mode::probe_rtt) cwnd = std::min<std::uint64_t>(cwnd, least);
  set_cwnd(c, cwnd);
}

// --- the model

void Bbr::update_rate(Connection& c, BbrState& s, const RateSample& r) {
  s.round_start = false;
  if (!r.valid) return;
  if (r.prior_delivered >= s.next_round) {
    s.next_round = c.pacing->delivery.delivered();
    ++s.rounds;
    s.round_start = true;
    s.conserve = false;
  }
  sample_policer(c, s, r.newly_lost != 0, r.app_limited);
  const auto rate = static_cast<float>(r.rate());
  if (!r.app_limited || rate >= s.rates.best()) s.rates.add(s.rounds, rate, kRateRounds);
}

// ACKs that come in clumps: what they tell beyond the rate needs room in the window, or the path stands still between two.
void Bbr::update_aggregation(Connection& c, BbrState& s, const RateSample& r) {
  if (!r.valid || r.newly_delivered == 0) return;
  if (s.round_start && ++s.extra_rounds >= kAggregationRounds) {
    s.extra_rounds = 0;
    s.extra_at = s.extra_at == 0 ? 1 : 0;
    s.extra[s.extra_at] = 0;
  }
  const Time delivered_at = c.pacing->delivery.delivered_at();
  double expected = rate_of(s) * in_seconds(delivered_at - s.epoch_at);
  const std::uint64_t most = std::uint64_t{kAggregationMost} * c.hot.mss;
  if (static_cast<double>(s.epoch_acked) <= expected || s.epoch_acked + r.newly_delivered >= most) {
    s.epoch_acked = 0;
    s.epoch_at = delivered_at;
    expected = 0;
  }
  s.epoch_acked += r.newly_delivered;
  const double extra = std::min<double>(static_cast<double>(s.epoch_acked) - expected, c.hot.cwnd);
  s.extra[s.extra_at] = std::max(s.extra[s.extra_at], static_cast<float>(extra));
}

void Bbr::begin_cycle(Connection& c, BbrState& s) {
  s.mode = Mode::probe_rate;
  // Anywhere but in the phase that drains, so that flows do not probe in step; the next ACK moves on by one.
  const std::uint32_t mixed = (c.hash ^ s.rounds * 0x9e3779b9U) * 0x85ebca6bU >> 16;
  s.cycle = static_cast<std::uint8_t>((kCycle - 1 - mixed % (kCycle - 1) + 1) % kCycle);
  s.cycle_at = c.pacing->delivery.delivered_at();
}

void Bbr::update_cycle(Connection& c, BbrState& s, const RateSample& r, std::uint32_t prior_flight, Time now) {
  if (s.mode != Mode::probe_rate) return;
  const Time delivered_at = c.pacing->delivery.delivered_at();
  const bool whole = delivered_at - s.cycle_at > s.min_rtt;
  bool over = whole;
  const double rate = s.rates.best(), flight = in_flight_later(c, prior_flight, now);
  if (s.pacing_gain > 1)
    over = whole && (r.newly_lost != 0 || flight >= static_cast<double>(window_for(c, rate, s.pacing_gain)));
  else if (s.pacing_gain < 1)
    over = whole || flight <= static_cast<double>(window_for(c, rate, 1));
  if (!over) return;
  s.cycle = static_cast<std::uint8_t>((s.cycle + 1) % kCycle);
  s.cycle_at = delivered_at;
}

void Bbr::check_full(BbrState& s, const RateSample& r) {
  if (s.full || !s.round_start || r.app_limited) return;
  if (s.rates.best() >= s.full_rate * kFullGrowth) {
    s.full_rate = s.rates.best();
    s.full_count = 0;
    return;
  }
  s.full = ++s.full_count >= kFullRounds;
}

void Bbr::check_drained(Connection& c, BbrState& s, Time now) {
  const auto filled = [&] { return window_for(c, s.rates.best(), 1); };
  if (s.mode == Mode::startup && s.full) {
    s.mode = Mode::drain;
    c.tx.ssthresh = static_cast<std::uint32_t>(std::min<std::uint64_t>(filled(), UINT32_MAX - 1));
  }
  if (s.mode == Mode::drain && in_flight_later(c, c.hot.flight(), now) <= static_cast<double>(filled())) begin_cycle(c, s);
}

void Bbr::check_probe_rtt_over(Connection& c, BbrState& s, Time now) {
  if (s.probe_rtt_until == Time{} || now <= s.probe_rtt_until) return;
  s.min_rtt_at = now;
  set_cwnd(c, std::max<std::uint32_t>(c.hot.cwnd, s.prior_cwnd));
  if (s.full)
    begin_cycle(c, s);
  else
    s.mode = Mode::startup;
}

void Bbr::update_min_rtt(Connection& c, BbrState& s, const AckSample& a, Time now) {
  const bool old = now > s.min_rtt_at + kMinRttSpan;
  const Duration rtt = a.latest_rtt != kNoSample ? a.latest_rtt : a.rtt;
  // A short segment alone in the network may have waited for a delayed ACK.
  const bool delayed = a.advanced && a.acked < c.hot.mss && a.flight_before <= c.hot.mss;
  if (rtt >= Duration::zero() && (rtt < s.min_rtt || (old && !delayed))) {
    s.min_rtt = rtt;
    s.min_rtt_at = now;
  }
  if (old && !s.idle_restart && s.mode != Mode::probe_rtt) {
    save_cwnd(c);
    s.mode = Mode::probe_rtt;
    s.probe_rtt_until = Time{};
  }
  if (s.mode != Mode::probe_rtt) return;
  auto& d = c.pacing->delivery;
  d.note_app_limited(c.hot.flight());  // what is measured meanwhile says nothing of the rate
  if (s.probe_rtt_until == Time{}) {
    if (c.hot.flight() > kLeastWindow * c.hot.mss) return;
    s.probe_rtt_until = now + kProbeRttTime;
    s.probe_rtt_round_over = false;
    s.next_round = d.delivered();
    return;
  }
  s.probe_rtt_round_over = s.probe_rtt_round_over || s.round_start;
  if (s.probe_rtt_round_over) check_probe_rtt_over(c, s, now);
}

// --- policers

void Bbr::begin_policer_interval(Connection& c, BbrState& s) {
  const auto& d = c.pacing->delivery;
  s.policed_at = d.delivered_at();
  s.policed_delivered = d.delivered();
  s.policed_lost = d.lost();
  s.policed_rounds = 0;
}

void Bbr::forget_policer(Connection& c, BbrState& s) {
  s.policed_rate = 0;
  s.use_policed = s.policer_sampling = false;
  begin_policer_interval(c, s);
}

void Bbr::sample_policer(Connection& c, BbrState& s, bool lost, bool app_limited) {
  if (s.use_policed) {
    if (s.mode == Mode::probe_rate && s.round_start && ++s.policed_rounds >= kPolicedUse) {
      forget_policer(c, s);
      begin_cycle(c, s);
    }
    return;
  }
  if (!s.policer_sampling) {
    if (!lost) return;
    begin_policer_interval(c, s);
    s.policer_sampling = true;
  }
  if (app_limited) return forget_policer(c, s);
  if (s.round_start) ++s.policed_rounds;
  if (s.policed_rounds < kPolicedRounds) return;
  if (s.policed_rounds > 4 * kPolicedRounds) return forget_policer(c, s);
  if (!lost) return;  // an interval ends with a loss
  const auto& d = c.pacing->delivery;
  const std::uint64_t delivered = d.delivered() - s.policed_delivered;
  if (delivered == 0 || static_cast<float>(d.lost() - s.policed_lost) < kPolicedLoss * static_cast<float>(delivered)) return;
  const Duration took = d.delivered_at() - s.policed_at;
  if (took < milliseconds(1)) return;
  const auto rate = static_cast<float>(static_cast<double>(delivered) / in_seconds(took));
  const float difference = std::abs(rate - s.policed_rate);
  if (s.policed_rate > 0 && (difference <= kPolicedAlike * s.policed_rate || difference <= kPolicedDifference)) {
    s.policed_rate = (rate + s.policed_rate) / 2;
    s.use_policed = true;
    s.pacing_gain = 1;
    s.policed_rounds = 0;
    return;
  }
  s.policed_rate = rate;
  begin_policer_interval(c, s);
}

// --- events

void Bbr::on_ack(Connection& c, const AckSample& a, Time now) const {
  if (!c.pacing->delivery.sample().fresh) return;  // a timer's conclusion, not an ACK
  c.pacing->delivery.use_up();
  const RateSample& r = c.pacing->delivery.sample();
  auto& s = state(c);
  update_rate(c, s, r);
  update_aggregation(c, s, r);
  update_cycle(c, s, r, a.flight_before, now);
  check_full(s, r);
  check_drained(c, s, now);
  update_min_rtt(c, s, a, now);
  if (r.newly_delivered != 0) s.idle_restart = false;
  switch (s.mode) {
    case Mode::startup: s.pacing_gain = s.cwnd_gain = kHighGain; break;
    case Mode::drain: s.pacing_gain = kDrainGain; s.cwnd_gain = kHighGain; break;
    case Mode::probe_rate: s.pacing_gain = s.use_policed ? 1 : kCycleGains[s.cycle]; s.cwnd_gain = kCwndGain; break;
    case Mode::probe_rtt: s.pacing_gain = s.cwnd_gain = 1; break;
  }
  set_rate(c, rate_of(s), s.pacing_gain);
  update_cwnd(c, s, r);
}

void Bbr::on_timeout(Connection& c, bool first, Time) const {
  auto& s = state(c);
  if (first) save_cwnd(c);
  s.prior_phase = Phase::loss;
  s.full_rate = 0;
  s.round_start = true;  // a timeout ends a round
  sample_policer(c, s, true, false);
  set_cwnd(c, std::uint64_t{c.hot.flight()} + c.hot.mss);
}

void Bbr::on_flight_begins(Connection& c, Time now) const {
  auto& s = state(c);
  if (!c.pacing->delivery.app_limited()) return;
  s.idle_restart = true;
  s.epoch_at = now;
  s.epoch_acked = 0;
  if (s.mode == Mode::probe_rate)
    set_rate(c, rate_of(s), 1);
  else if (s.mode == Mode::probe_rtt)
    check_probe_rtt_over(c, s, now);
}

void Bbr::undo(Connection& c, Time) const {
  auto& s = state(c);
  s.full_rate = 0;
  s.full_count = 0;
  forget_policer(c, s);
}

}  // namespace

// The maximum over `window` rounds by three candidates, as Linux's minmax (Kathleen Nichols).
void WindowedMax::add(std::uint32_t round, float rate, std::uint32_t window) {
  const Entry e{round, rate};
  if (rate >= entries[0].rate || round - entries[2].round > window) {
    entries[0] = entries[1] = entries[2] = e;
    return;
  }
  if (rate >= entries[1].rate)
    entries[1] = entries[2] = e;
  else if (rate >= entries[2].rate)
    entries[2] = e;
  const std::uint32_t age = round - entries[0].round;
  if (age > window) {
    entries[0] = entries[1];
    entries[1] = entries[2];
    entries[2] = e;
    if (round - entries[0].round > window) {
      entries[0] = entries[1];
      entries[1] = entries[2];
      entries[2] = e;
    }
  } else if (entries[1].round == entries[0].round && age > window / 4) {
    entries[1] = entries[2] = e;
  } else if (entries[2].round == entries[1].round && age > window / 2) {
    entries[2] = e;
  }
}

const CongestionControl& bbr() {
  static constinit const Bbr it;
  return it;
}

}  // namespace mtcp::stack
