// RFC 5681: additive increase, multiplicative decrease.
#include "stack/tcp/sender/controls.hh"

namespace mtcp::stack {
namespace {

class Reno final : public WindowControl {
 public:
  [[nodiscard]] const char* name() const override { return "reno"; }

 private:
  void grow(Connection& c, std::uint32_t acked, const AckSample&, Time) const override {
    if (in_slow_start(c)) acked = slow_start(c, acked);
    if (acked != 0) add_segment_per(c, c.hot.cwnd, acked);
  }
  [[nodiscard]] std::uint32_t reduced(Connection& c, Time) const override { return c.hot.cwnd / 2; }
};

}  // namespace

const CongestionControl& reno() {
  static constinit const Reno it;
  return it;
}

}  // namespace mtcp::stack
