// What a connection has whose packets leave at a rate: because its congestion control has a model of the path, or the
// application wants so (SO_MAX_PACING_RATE). All others have none of this.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "stack/base/time.hh"
#include "stack/tcp/sender/delivery_rate.hh"

namespace mtcp::stack {

struct Connection;

inline constexpr std::uint64_t kUnlimitedRate = UINT64_MAX;

struct Pacing {
  // Bytes a second, written by congestion control, bounded by the application's wish.
  std::uint64_t rate = kUnlimitedRate;
  std::uint64_t limit = kUnlimitedRate;
  Time next{};                   // when the next burst may leave
  std::uint32_t burst_left = 0;  // bytes of the present one
  bool waits = false;            // something is to leave at `next`
  bool paced = true;             // false: it is only measured ...
  bool measured = false;         // ... for tcp_info (Sender::measure_delivery)
  std::uint32_t index = UINT32_MAX;  // in PacingTimers

  // What leaves at once: about a millisecond's worth, so that a frame of several segments stays one.
  [[nodiscard]] std::uint32_t burst(std::uint32_t mss) const {
    constexpr std::uint64_t kSlow = 150'000;  // below it, one segment
    const std::uint32_t least = rate < kSlow ? mss : 2 * mss;
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(rate / 1024, least, std::max<std::uint32_t>(65536, least)));
  }
  void set_rate(std::uint64_t bytes_per_second) { rate = std::max<std::uint64_t>(std::min(bytes_per_second, limit), 1); }
  // May something leave now? If so, it is part of a burst.
  [[nodiscard]] bool may_send(std::uint32_t mss, Time now);
  void on_sent(std::uint32_t bytes);

  DeliveryRate delivery;
  // The model's state.
  static constexpr std::size_t kModel = 192;
  alignas(8) std::array<std::byte, kModel> model{};
};

// Who waits for the time of its next burst: a heap, to the nanosecond.
class PacingTimers {
 public:
  void arm(Connection& c, Time when);  // or moves it
  void cancel(Connection& c);
  [[nodiscard]] Time next() const { return heap_.empty() ? kNever : heap_.front().when; }
  [[nodiscard]] bool due(Time now) const { return !heap_.empty() && heap_.front().when <= now; }
  Connection* expire(Time now);  // null: none is due

 private:
  struct Entry {
    Time when;
    Connection* connection;
  };
  void put(std::size_t i, Entry e);
  void rise(std::size_t i, Entry e);
  void sink(std::size_t i, Entry e);
  std::vector<Entry> heap_;
};

}  // namespace mtcp::stack
