// Signal handlers of the application, and where they may run.
#pragma once

#include <signal.h>

#include <cstdint>

namespace mtcp::preload {

// Puts the trampoline around every handler that is installed, and from now on around those that come.
void start_wrapping();
// Runs the handler that waits for the thread to leave the engine (and those that its mask held back).
void run_deferred();
// As the kernel does on EPIPE.
void raise_sigpipe();
// In a child after fork.
void forget_deferred();

// The engine's Services.
const volatile std::uint32_t* signal_count();
bool last_signal_restarts();
void begin_sleep();
void end_sleep();
void internal_thread();
// Changes the calling thread's mask; a mask that deferral has set aside is the one that counts. -errno.
int change_mask(int how, const sigset_t* set, sigset_t* old);

}  // namespace mtcp::preload
