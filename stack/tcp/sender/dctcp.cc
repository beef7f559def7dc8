// DCTCP (RFC 8257): the window shrinks by as much as what is marked is of all that was sent. In the details as Linux.
#include "stack/tcp/sender/dctcp.hh"

#include <algorithm>

#include "stack/tcp/sender/controls.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kAll = 1024;  // alpha is 1
constexpr unsigned kGain = 4;         // section 3.3: g = 1/16

class Dctcp final : public WindowControl {
 public:
  constexpr Dctcp() : WindowControl(true) {}
  [[nodiscard]] const char* name() const override { return "dctcp"; }
  void start(Connection& c, std::uint32_t cwnd, Time now) const override {
    WindowControl::start(c, cwnd, now);
    auto& s = state_of<Own>(c);
    s.alpha = kAll;  // section 4.2: as if the path were congested, until it is known
    s.round_end = c.hot.snd_nxt;
  }
  void on_ack(Connection& c, const AckSample& a, Time now) const override {
    if (c.hot.ecn) observe(c, a);
    WindowControl::on_ack(c, a, now);
  }
  static DctcpInfo info(const Connection& c) {
    const auto& s = state_of<Own>(const_cast<Connection&>(c));
    return {c.hot.ecn, c.hot.ecn && c.recovery.ecn_echo, s.alpha, s.acked_marked, s.acked_all};
  }

 private:
  struct Own : State {
    std::uint32_t alpha, acked_all, acked_marked;
    Seq round_end;
  };

  // Section 3.3, once for each window of data.
  static void observe(Connection& c, const AckSample& a) {
    auto& s = state_of<Own>(c);
    s.acked_all += a.delivered;
    if (c.recovery.ecn_echoed) s.acked_marked += a.delivered;
    if (before(c.hot.snd_una, s.round_end)) return;
    const std::uint32_t decay = s.alpha >> kGain;
    s.alpha -= decay != 0 ? decay : s.alpha;
    if (s.acked_marked != 0) {
      const std::uint64_t part = (std::uint64_t{s.acked_marked} << (10 - kGain)) / std::max(s.acked_all, 1U);
      s.alpha = static_cast<std::uint32_t>(std::min<std::uint64_t>(s.alpha + part, kAll));
    }
    s.acked_all = s.acked_marked = 0;
    s.round_end = c.hot.snd_nxt;
  }

  // Section 3.3 for marks; section 3.4: to a loss as any TCP.
  [[nodiscard]] std::uint32_t reduced(Connection& c, Time) const override {
    const std::uint32_t cwnd = c.hot.cwnd;
    if (!c.hot.ecn || c.hot.phase != Phase::cwr) return cwnd / 2;
    return cwnd - static_cast<std::uint32_t>(std::uint64_t{cwnd} * state_of<Own>(c).alpha >> 11);
  }
};

constinit const Dctcp it;

}  // namespace

const CongestionControl& dctcp() { return it; }
DctcpInfo dctcp_info(const Connection& c) { return Dctcp::info(c); }

}  // namespace mtcp::stack
