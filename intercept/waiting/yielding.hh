// When a thread that would sleep gives its CPU away first (sched_yield(2)), and then looks once more. Where there are more stacks
// than CPUs others run meanwhile, and that look finds what they have sent. It would have ended a sleep as well, at the price of a
// wake-up and of a switch in the middle of the sender's work. But a program that only computes keeps a CPU that is given to it for its
// whole time slice, some milliseconds, where a packet would have woken a sleeper at once. That does no harm while there is enough to
// do for the stack meanwhile; so after yields that find nothing there are none for a while.
#pragma once

#include "stack/base/time.hh"

namespace mtcp::intercept {

// Of one stack, under its shard's lock.
class Yielding {
 public:
  // A turn of the stack has found something for a connection or listener.
  void progressed() { progress_ = true; }
  // Nothing is ready, and a sleep comes next: whether a yield comes first. Once after each progress.
  [[nodiscard]] bool due(stack::Time now);
  // A yield that was due has lasted from `before` to `now`.
  void yielded(stack::Time before, stack::Time now);

 private:
  void judge(stack::Time now);
  void pause(stack::Time now);

  bool progress_ = false;            // since the last yield
  bool judged_ = true;               // whether the last yield has paid is known
  unsigned in_vain_ = 0;             // yields in a row that have found nothing; a long one counts for several
  unsigned paid_ = 0;                // yields since the last pause that have
  stack::Duration pause_{};          // the last one; zero: yields have paid since
  stack::Time next_{};               // no yield before that
};

}  // namespace mtcp::intercept
