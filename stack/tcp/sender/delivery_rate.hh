// How fast the path delivers (draft-cheng-iccrg-delivery-rate-estimation; Linux's tcp_rate.c): for each packet in flight,
// what had been delivered when it was sent. Only for connections whose congestion control asks for it.
#pragma once

#include <cstdint>
#include <memory>

#include "stack/base/seq.hh"
#include "stack/base/time.hh"

namespace mtcp::stack {

// What an ACK says of the rate. `valid`: of delivered and interval; the rest is true without it.
struct RateSample {
  bool fresh = false;               // made by this ACK
  bool valid = false;
  bool app_limited = false;         // the application, not the path, was the limit
  std::uint64_t prior_delivered = 0;  // bytes, when the packet was sent
  std::uint64_t delivered = 0;      // bytes since then ...
  Duration interval{};              // ... in this time
  std::uint32_t newly_delivered = 0, newly_lost = 0;  // bytes, by this ACK
  [[nodiscard]] double rate() const {  // bytes a second
    return static_cast<double>(delivered) * 1e9 / static_cast<double>(interval.count());
  }
};

class DeliveryRate {
 public:
  // A packet [begin, end) leaves, first or again. `alone`: nothing was in flight.
  void on_sent(Seq begin, Seq end, Time at, bool alone);
  // It was sacked; or all up to `ack` has been acknowledged. What was delivered before does not count again.
  void on_sacked(Seq begin);
  void on_acked(Seq ack);
  // The ACK is over: `delivered` and `lost` bytes are what it has told in all. A sample shorter than the least RTT is none.
  void finish(std::uint32_t delivered, std::uint32_t lost, Duration least_rtt, Time now);
  // The application has nothing to send, with `flight` bytes in the network.
  void note_app_limited(std::uint32_t flight) { app_limited_until_ = delivered_ + flight != 0 ? delivered_ + flight : 1; }

  [[nodiscard]] bool app_limited() const { return app_limited_until_ != 0; }
  [[nodiscard]] std::uint64_t delivered() const { return delivered_; }  // bytes, ever
  [[nodiscard]] std::uint64_t lost() const { return lost_; }
  [[nodiscard]] Time delivered_at() const { return delivered_at_; }
  [[nodiscard]] const RateSample& sample() const { return sample_; }
  void use_up() { sample_.fresh = false; }
  // The latest that tells of the path (tcpi_delivery_rate): bytes a second; 0: none yet.
  [[nodiscard]] std::uint64_t bytes_per_second() const { return latest_rate_; }
  [[nodiscard]] bool latest_was_app_limited() const { return latest_app_limited_; }

 private:
  struct Sent {
    Seq begin, end;
    Time at, first_at, delivered_at;
    std::uint64_t delivered = 0;
    bool app_limited = false, counted = false;
  };
  [[nodiscard]] bool grow();
  [[nodiscard]] Sent* find(Seq begin);
  [[nodiscard]] Sent& at(std::uint32_t i) { return ring_[i & mask_]; }
  void stamp(Sent& s, Time at);
  void take(Sent& s);

  std::unique_ptr<Sent[]> ring_;  // in the order of their sequence numbers
  std::uint32_t head_ = 0, tail_ = 0, mask_ = 0;
  std::uint64_t delivered_ = 0, lost_ = 0;
  std::uint64_t app_limited_until_ = 0;  // of delivered_; 0: it is not
  Time first_at_{}, delivered_at_{};
  // Of the packet sent last among those that this ACK has delivered.
  bool taken_ = false;
  Time taken_at_{}, prior_delivered_at_{};
  Seq taken_end_;
  Duration send_interval_{};
  RateSample sample_;
  std::uint64_t latest_rate_ = 0;
  bool latest_app_limited_ = false;
};

}  // namespace mtcp::stack
