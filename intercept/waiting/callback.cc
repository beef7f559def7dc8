// A set becomes ours when it gets its first socket of ours. Threads may be waiting in it by then, in the
// kernel, for as long as nothing happens there. The bell, an eventfd that is always readable, is put into the
// kernel's set until they have all returned; the shim takes its event out of what the application sees and
// waits again, here.
#include <errno.h>

#include "intercept/process.hh"
#include "intercept/support/clock.hh"

namespace mtcp::intercept {
namespace {

// A thread that was cancelled inside epoll_wait is counted for ever, and the bell keeps those that wait here
// from sleeping.
constexpr stack::Duration kLongestCall = stack::seconds(1);

}  // namespace

void Process::call_back(EpollSet& set, int ep) {
  if (!files.table().waited_for_in_kernel(ep)) return;
  if (bell < 0) {
    bell = internal_eventfd();
    const std::uint64_t one = 1;
    if (bell < 0) return;  // EMFILE: they see the set's new members after their next event in the kernel
    (void)kernel.write(bell, &one, sizeof one);
  }
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.ptr = const_cast<void*>(files.table().callback_mark());
  set.calls_back = kernel.epoll_ctl(ep, EPOLL_CTL_ADD, bell, &e) == 0;
  set.calls_back_until = now() + kLongestCall;
}

bool Process::still_calls_back(EpollSet& set, int ep) {
  if (!set.calls_back) return false;
  if (files.table().waited_for_in_kernel(ep) && now() < set.calls_back_until) return true;
  set.calls_back = false;
  (void)kernel.epoll_ctl(ep, EPOLL_CTL_DEL, bell, nullptr);
  return false;
}

}  // namespace mtcp::intercept
