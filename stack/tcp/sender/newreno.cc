// RFC 5681: slow start and congestion avoidance, counting bytes (RFC 3465).
#include <algorithm>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/connection.hh"

namespace mtcp::stack {
namespace {

class NewReno final : public CongestionControl {
 public:
  [[nodiscard]] const char* name() const override { return "newreno"; }

  void on_acked(Connection& c, std::uint32_t acked, Time) const override {
    auto& h = c.hot;
    auto& tx = c.tx;
    if (h.cwnd < tx.ssthresh) {
      // One ACK may stand for a whole burst (coalesced at the receiver), so growth is by bytes without RFC
      // 3465's limit L; what goes beyond ssthresh counts for congestion avoidance.
      const std::uint32_t step = std::min(acked, tx.ssthresh - h.cwnd);
      h.cwnd += step;
      acked -= step;
    }
    if (acked == 0) return;
    tx.cwnd_acked += acked;
    while (tx.cwnd_acked >= h.cwnd) {
      tx.cwnd_acked -= h.cwnd;
      h.cwnd += h.mss;
    }
  }

  [[nodiscard]] std::uint32_t ssthresh(const Connection& c, std::uint32_t flight) const override {
    return std::max(flight / 2, 2U * c.hot.mss);  // RFC 5681 equation 4
  }
};

}  // namespace

const CongestionControl* find_congestion_control(std::string_view name) {
  static constinit const NewReno newreno;
  return name == newreno.name() || name == "reno" ? &newreno : nullptr;
}

}  // namespace mtcp::stack
