// An engine that records every call and otherwise leaves it to the kernel: so that tests see what the shim
// does, and so that whole programs can run through the shim's engine side with results known to be right.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "intercept/engine.hh"

namespace mtcp::preload {

// Shared between the engine and a test in the same process (fake_control() below). Not locked: one thread
// sets it up.
struct FakeControl {
  bool recording = false;
  std::vector<std::string> calls;  // "recv fd=5 n=10 flags=0"
  std::deque<long> results;        // what the next calls return instead of doing anything
  std::function<void()> during;    // runs inside the next call, once
  std::string listeners;           // what a program gets by exec
  int exit_fd = -1;                // at_exit() writes an "x" there, dying() a "d"
  const intercept::Services* services = nullptr;
};

// Exported by the fake engine; found by dlsym.
using FakeControlEntry = FakeControl* (*)();
inline constexpr const char* kFakeControlName = "fake_control";

}  // namespace mtcp::preload
