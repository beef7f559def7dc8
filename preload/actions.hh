// The handlers that the application has installed, behind the trampoline.
#pragma once

#include <signal.h>

#include "preload/thread.hh"

namespace mtcp::preload {

// What the kernel calls instead of them.
void trampoline(int sig, siginfo_t* info, void* context);

// The application's handler of a signal that has the trampoline. Async-signal-safe.
[[nodiscard]] Action current_action(int sig);

}  // namespace mtcp::preload
