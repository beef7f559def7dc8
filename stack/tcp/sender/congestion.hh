// Congestion control as the rest of TCP sees it. Detecting loss and deciding what to send again is not its
// business: it says how the window grows when bytes are ACKed, and what is left of it after a loss.
#pragma once

#include <cstdint>
#include <string_view>

#include "stack/base/time.hh"

namespace mtcp::stack {

struct Connection;

class CongestionControl {
 public:
  CongestionControl(const CongestionControl&) = delete;
  CongestionControl& operator=(const CongestionControl&) = delete;

  // As in net.ipv4.tcp_congestion_control; never null.
  [[nodiscard]] virtual const char* name() const = 0;
  // `acked` new bytes were acknowledged while the window was in full use, outside recovery: grow hot.cwnd.
  virtual void on_acked(Connection& c, std::uint32_t acked, Time now) const = 0;
  // What ssthresh becomes at a loss with `flight` bytes in the network.
  [[nodiscard]] virtual std::uint32_t ssthresh(const Connection& c, std::uint32_t flight) const = 0;

 protected:
  CongestionControl() = default;
  ~CongestionControl() = default;
};

// The one with this name, or null. It lives for ever.
[[nodiscard]] const CongestionControl* find_congestion_control(std::string_view name);

}  // namespace mtcp::stack
