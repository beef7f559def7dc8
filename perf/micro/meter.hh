// Which part of a program is counted by callgrind: nothing but what a Count is alive for. Without valgrind nothing happens.
// The program is run with --instr-atstart=no --collect-atstart=no, so that what prepares a measurement takes no time.
#pragma once

#include <valgrind/callgrind.h>

namespace mtcp::perf {

class Meter {
 public:
  Meter() { CALLGRIND_START_INSTRUMENTATION; }
  ~Meter() { CALLGRIND_STOP_INSTRUMENTATION; }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;
};

class Count {
 public:
  explicit Count(bool wanted = true) : wanted_(wanted) {
    if (wanted_) CALLGRIND_TOGGLE_COLLECT;
  }
  ~Count() {
    if (wanted_) CALLGRIND_TOGGLE_COLLECT;
  }
  Count(const Count&) = delete;
  Count& operator=(const Count&) = delete;

 private:
  const bool wanted_;
};

}  // namespace mtcp::perf
