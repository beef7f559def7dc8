// RFC 5681: additive increase, multiplicative decrease.
#include "stack/tcp/sender/controls.hh"

namespace mtcp::stack {
namespace {

class Reno final : public WindowControl {
 public:
  [[nodiscard]] const char* name() const override { return "reno"; }

 private:
  [[nodiscard]] std::uint32_t reduced(Connection& c, Time) const override { return c.hot.cwnd / 2; }
};

}  // namespace

const CongestionControl& reno() {
  static constinit const Reno it;
  return it;
}

}  // namespace mtcp::stack
