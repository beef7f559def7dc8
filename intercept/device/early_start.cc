#include "intercept/device/early_start.hh"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <mutex>

#include "intercept/process.hh"
#include "intercept/support/clock.hh"

namespace mtcp::intercept {
namespace {

// Longer than servers take from listen() to the fork that makes them a daemon or its workers; one that takes longer is no
// harm (Process::retire).
constexpr stack::Duration kPatience = stack::milliseconds(20);

}  // namespace

void EarlyStart::arm() {
  due_ = now() + kPatience;
  if (running_) return;
  sigset_t all, old;
  sigfillset(&all);
  process_.kernel.set_signal_mask(SIG_SETMASK, &all, &old);
  running_ = pthread_create(&thread_, nullptr, &EarlyStart::main, this) == 0;  // else: at the first wait
  process_.kernel.set_signal_mask(SIG_SETMASK, &old, nullptr);
}

void EarlyStart::end() {
  {
    const Guard guard(process_, Guard::Everything{});
    cancel();
    if (!running_) return;
    awaited_ = true;
  }
  pthread_join(thread_, nullptr);
}

void* EarlyStart::main(void* self) {
  static_cast<EarlyStart*>(self)->wait();
  return nullptr;
}

void EarlyStart::wait() {
  process_.services.internal_thread();
  Guard guard(process_, Guard::Everything{});
  while (due_ != stack::kNever) {
    const stack::Duration left = due_ - now();
    if (left <= stack::Duration::zero()) {
      due_ = stack::kNever;
      process_.start_for_listeners();  // which may arm it again
      continue;
    }
    guard.unlock();
    sleep_for(process_.kernel, std::min<stack::Duration>(left, kPatience));
    guard.lock();
  }
  running_ = false;
  if (!awaited_) pthread_detach(thread_);
}

}  // namespace mtcp::intercept
