// What BBR keeps of a connection, in Pacing::model. TCP_CC_INFO tells some of it.
#pragma once

#include <cstdint>
#include <new>
#include <type_traits>

#include "stack/tcp/connection.hh"
#include "stack/tcp/sender/pacing.hh"

namespace mtcp::stack {

struct WindowedMax {
  struct Entry {
    std::uint32_t round = 0;
    float rate = 0;
  };
  Entry entries[3];
  void add(std::uint32_t round, float rate, std::uint32_t window);
  [[nodiscard]] float best() const { return entries[0].rate; }
};

// Rates in bytes a second, amounts in bytes.
struct BbrState {
  enum class Mode : std::uint8_t { startup, drain, probe_rate, probe_rtt };
  WindowedMax rates;
  Duration min_rtt = Duration::max();
  Time min_rtt_at{}, probe_rtt_until{}, cycle_at{}, epoch_at{}, policed_at{};
  std::uint64_t next_round = 0;  // delivered() that ends this round trip
  std::uint64_t epoch_acked = 0, policed_delivered = 0, policed_lost = 0;
  std::uint32_t rounds = 0, prior_cwnd = 0;
  float full_rate = 0, policed_rate = 0, extra[2]{};
  float pacing_gain = 2.885F, cwnd_gain = 2.885F;
  Mode mode = Mode::startup;
  Phase prior_phase = Phase::open;
  std::uint8_t cycle = 0, full_count = 0, policed_rounds = 0, extra_rounds = 0, extra_at = 0;
  bool full : 1 = false;  // the path has been filled once
  bool round_start : 1 = false, conserve : 1 = false, idle_restart : 1 = false, has_rtt : 1 = false;
  bool probe_rtt_round_over : 1 = false, use_policed : 1 = false, policer_sampling : 1 = false;
};
static_assert(sizeof(BbrState) <= Pacing::kModel && std::is_trivially_destructible_v<BbrState>);

inline BbrState& bbr_state(Pacing& p) { return *std::launder(reinterpret_cast<BbrState*>(p.model.data())); }

}  // namespace mtcp::stack
