// A sender, a receiver, and a path between them: one that has a rate and a queue, and one that does what paths do, over
// which one transfer is a row of the table in PATHS.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/sim/sim.hh"

namespace mtcp::sim {

// `bandwidth` in bytes a second, `delay` of each way, `queue` in packets.
struct RatedPath {
  explicit RatedPath(const char* congestion, double bandwidth, Duration delay, std::size_t queue)
      : client(sim.add_host([&](Options& o) { o.tcp.congestion_control = congestion; }, 32768)) {
    sim.wire.options.bandwidth = bandwidth;
    sim.wire.options.delay = delay;
    sim.wire.options.queue = queue;
    server.listen(80);
  }
  Socket& start(std::uint64_t bytes, const SocketOptions& o = {}) {
    Socket& c = client.connect(server, 80, o);
    c.send(bytes);
    return c;
  }
  std::uint64_t received() {
    return server.accepted.empty() ? 0 : server.accepted[0]->received;
  }
  std::uint64_t run(Duration d) {
    const std::uint64_t before = received();
    sim.run_for(d);
    return received() - before;
  }
  Sim sim{1};
  Host& server = sim.add_host();
  Host& client;
};

// Of the data unless said otherwise. Probabilities between 0 and 1.
struct Conditions {
  double rate = 1.25e6;              // bytes a second
  Duration rtt = milliseconds(20);   // without queues
  double queue = 2;                  // of the bottleneck, in what fills the path; at least 20 packets
  double loss = 0;
  double burst = 1;                  // packets that are lost together: all in the time that so many take
  double reorder = 0;                // so many come late by up to half a round trip
  double duplicate = 0;
  Duration jitter{};                 // each way; packets overtake
  double ack_loss = 0;
  unsigned ack_thinning = 1;         // one of so many ACKs gets through, and what comes a quarter of a round trip after the last that did
  double police = 0;                 // bytes a second; more is dropped at once, beyond a bucket of 50 ms
};

// Drops and delays by the conditions.
class Impairment {
 public:
  Impairment(Sim& sim, const Conditions& c) : sim_(sim), c_(c) {
    auto& o = sim.wire.options;
    o.bandwidth = c.rate;
    o.delay = c.rtt / 2;
    o.queue = static_cast<std::size_t>(std::max(20.0, c.queue * c.rate * seconds_of(c.rtt) / kFrame));
    o.jitter = c.jitter;
    o.reorder = c.reorder;
    o.reorder_by = c.rtt / 2;
    o.duplicate = c.duplicate;
    bucket_ = c.police * kBucket;
    sim.wire.drop_if = [this](const FrameInfo& f) { return f.tcp && !f.has(kSyn) && drop(f); };
  }
  // Of several over the same path: the policer's bucket is as others have left it, and filled by chance when the handshake is over. From a full
  // one all transfers would be the same, and tell of one.
  void begin_transfer() {
    if (c_.police <= 0) return;
    const double full = c_.police * kBucket, by_handshake = c_.police * seconds_of(c_.rtt);
    bucket_ = std::uniform_real_distribution<double>(0, full - by_handshake)(sim_.random);
    filled_at_ = sim_.now;
  }
  static double seconds_of(Duration d) { return static_cast<double>(d.count()) * 1e-9; }
  static constexpr double kFrame = 1538, kPayload = 1448;  // bytes of a full segment on the wire, and of its data

 private:
  static constexpr double kBucket = 0.05;  // seconds
  bool chance(double p) { return p > 0 && std::uniform_real_distribution<double>(0, 1)(sim_.random) < p; }
  bool drop(const FrameInfo& f) {
    if (is_pure_ack(f) && f.from == 0) return chance(c_.ack_loss) || is_thinned();
    if (!is_data(f)) return false;
    if (c_.police > 0) {
      bucket_ = std::min(bucket_ + c_.police * seconds_of(sim_.now - filled_at_), c_.police * kBucket);
      filled_at_ = sim_.now;
      if (bucket_ < kFrame) return true;
      bucket_ -= kFrame;
    }
    if (c_.burst <= 1) return chance(c_.loss);
    if (sim_.now < bad_until_) return true;
    if (!chance(c_.loss / c_.burst / (1 - c_.loss))) return false;
    bad_until_ = sim_.now + Duration(static_cast<std::int64_t>(c_.burst * kFrame / c_.rate * 1e9));
    return true;
  }
  bool is_thinned() {
    if (c_.ack_thinning <= 1) return false;
    if (++acks_ < c_.ack_thinning && sim_.now - passed_at_ < c_.rtt / 4) return true;
    acks_ = 0;
    passed_at_ = sim_.now;
    return false;
  }
  Sim& sim_;
  const Conditions c_;
  double bucket_;
  Time filled_at_ = sim_.now;
  unsigned acks_ = 0;
  Time bad_until_{}, passed_at_{};
};

struct Outcome {
  double goodput = 0;      // of the bottleneck's rate
  double again = 0;        // segments sent again, of those sent
  bool hung = false;       // nothing arrived for a minute
};

// What every sender is tuned for: windows that are no limit.
inline void large_windows(Options& o) { o.tcp.wmem.max = o.tcp.rmem.max = 1U << 28; }

// What a loss of `p` leaves of a path to a sender that halves its window: the larger of PFTK's formula (Padhye et al.) and
// of CUBIC's (RFC 9438 section 5.1), in bytes a second.
inline double window_bound(double p, Duration rtt) {
  const double r = Impairment::seconds_of(rtt), rto = 0.2 + r, mss = Impairment::kPayload;
  if (p <= 0) return HUGE_VAL;
  const double pftk = mss / (r * std::sqrt(2 * p / 3) + rto * std::min(1.0, 3 * std::sqrt(3 * p / 8)) * p * (1 + 32 * p * p));
  const double cubic = mss * 1.054 * std::pow(r, -0.25) * std::pow(p, -0.75);
  return std::max(pftk, p < 0.01 ? cubic : 0);
}

inline double possible(const Conditions& c) {
  const double rate = c.police > 0 ? std::min(c.police, c.rate) : c.rate;
  return rate * Impairment::kPayload / Impairment::kFrame / (1 + c.duplicate);
}

// Sends for `time` after a start of `warm_up`.
inline Outcome measure(const char* congestion, const Conditions& c, Duration warm_up, Duration time, std::uint64_t seed = 1) {
  Sim sim(seed);
  const auto packets = static_cast<std::size_t>(4 * c.rate * Impairment::seconds_of(c.rtt) * (2 + c.queue) / 1448) + 8192;
  Host& server = sim.add_host(large_windows, packets);
  Host& client = sim.add_host(
      [&](Options& o) {
        large_windows(o);
        o.tcp.congestion_control = congestion;
      },
      packets);
  server.listen(80);
  const Impairment impairment(sim, c);
  Socket& s = client.connect(server, 80);
  s.send(1ULL << 50);
  const auto received = [&] { return server.accepted.empty() ? 0 : server.accepted[0]->received; };
  Outcome o;
  std::uint64_t before = 0, last = 0, sent = 0;
  Time moved = sim.now;
  const auto run = [&](Duration d) {
    for (const Time end = sim.now + d; sim.now < end;) {
      sim.run_for(std::min<Duration>(milliseconds(100), end - sim.now));
      if (received() != last) last = received(), moved = sim.now;
      o.hung = o.hung || sim.now - moved > seconds(60);
    }
  };
  run(warm_up);
  before = received();
  sent = client.count(Counter::segments_sent);
  const std::uint64_t again = client.count(Counter::retransmitted_segments);
  run(time);
  o.goodput = static_cast<double>(received() - before) / Impairment::seconds_of(time) / possible(c);
  o.again = static_cast<double>(client.count(Counter::retransmitted_segments) - again) /
            static_cast<double>(std::max<std::uint64_t>(client.count(Counter::segments_sent) - sent, 1));
  if (s.connection == nullptr || s.error != Errc::ok) o.hung = true;
  return o;
}

// 64 KB on a new connection, so many times: the round trips that the median and the slowest of a hundred take.
struct Completion {
  double median = 0, slowest = 0;
  bool hung = false;
};
inline Completion complete_64k(const char* congestion, const Conditions& c, unsigned times) {
  Sim sim(1);
  Host& server = sim.add_host();
  Host& client = sim.add_host([&](Options& o) { o.tcp.congestion_control = congestion; });
  server.listen(80);
  Impairment impairment(sim, c);
  std::vector<double> took;
  Completion result;
  for (unsigned i = 0; i < times; ++i) {
    const Time start = sim.now;
    impairment.begin_transfer();
    Socket& s = client.connect(server, 80);
    s.send(65536);
    s.close_when_sent = true;
    const std::size_t number = server.accepted.size();
    if (!sim.run_until([&] { return server.accepted.size() > number && server.accepted.back()->received == 65536; }, seconds(120))) {
      result.hung = true;
      return result;
    }
    took.push_back(Impairment::seconds_of(sim.now - start) / Impairment::seconds_of(c.rtt));
    server.accepted.back()->close();
    sim.run_for(milliseconds(1));
  }
  std::sort(took.begin(), took.end());
  result.median = took[times / 2];
  result.slowest = took[times * 99 / 100];
  return result;
}

}  // namespace mtcp::sim
