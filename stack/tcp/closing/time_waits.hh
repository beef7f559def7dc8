// TIME-WAIT (RFC 9293 3.6; RFC 6191; RFC 1337): an entry in a connection's place.
#pragma once

#include <cstdint>

#include "stack/base/slab.hh"
#include "stack/tcp/closing/time_wait_entry.hh"
#include "stack/tcp/connection.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp;

class TimeWaits {
 public:
  explicit TimeWaits(Tcp& tcp);
  TimeWaits(const TimeWaits&) = delete;
  TimeWaits& operator=(const TimeWaits&) = delete;

  void enter(Connection& c, Time now);  // replaces the connection by an entry; destroys it if detached
  void on_segment(std::uint32_t index, Segment& s, std::uint32_t hash, Time now);
  void drop(std::uint32_t index);
  void run_timers(Time now);
  [[nodiscard]] Time next_deadline() const;
  [[nodiscard]] bool is_reusable(const TimeWaitEntry& e, Time now) const;  // for a connect
  // The newest first, at most `most`.
  template <typename Visit>
  void for_newest(int most, Visit&& visit) {
    std::uint32_t at = newest_;
    for (int n = 0; n < most && at != kNone; ++n) {
      TimeWaitEntry& e = entries.at(at);
      at = e.prev;
      visit(e);
    }
  }

  Slab<TimeWaitEntry> entries;

 private:
  static constexpr std::uint32_t kNone = Slab<TimeWaitEntry>::kNone;

  void append(std::uint32_t index, Time now);
  void unlink(TimeWaitEntry& e);
  void send_ack(const TimeWaitEntry& e, Time now);
  [[nodiscard]] bool may_answer(TimeWaitEntry& e, const Segment& s, Time now);

  Tcp& tcp_;
  const Options& options_;
  Stats& stats_;
  std::uint32_t oldest_ = kNone, newest_ = kNone;
};

}  // namespace mtcp::stack
