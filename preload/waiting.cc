// epoll_ctl, poll and select. A call without a descriptor of ours is libc's.
#include <limits.h>
#include <string.h>

#include "preload/calls.hh"
#include "preload/clock.hh"
#include "preload/edge.hh"
#include "preload/mask.hh"

namespace mtcp::preload {

using intercept::Engine;

namespace {

constexpr int kWordBits = static_cast<int>(sizeof(unsigned long) * CHAR_BIT);

bool any_ours(const pollfd* p, nfds_t n) {
  if (engine() == nullptr || thread.inside()) return false;
  for (nfds_t i = 0; i < n; ++i) {
    if (!is_kernel(p[i].fd)) return true;
  }
  return false;
}

unsigned long word_of(const fd_set* s, int word) {
  unsigned long bits = 0;
  if (s != nullptr) memcpy(&bits, reinterpret_cast<const unsigned long*>(s) + word, sizeof bits);
  return bits;
}

bool any_ours(int n, const fd_set* r, const fd_set* w, const fd_set* x) {
  if (engine() == nullptr || thread.inside()) return false;
  for (int first = 0; first < n; first += kWordBits) {
    const int word = first / kWordBits;
    unsigned long bits = word_of(r, word) | word_of(w, word) | word_of(x, word);
    for (; bits != 0; bits &= bits - 1) {
      const int fd = first + __builtin_ctzl(bits);
      if (fd < n && !is_kernel(fd)) return true;
    }
  }
  return false;
}

int poll_ours(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) {
  if (!valid(timeout)) return translate(-EINVAL);
  const Mask whole(mask);
  return enter([&](Engine& engine) { return engine.poll(p, n, timeout, whole.get()); });
}

int select_ours(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout, const sigset_t* mask) {
  if (!valid(timeout)) return translate(-EINVAL);
  const Mask whole(mask);
  return enter([&](Engine& engine) { return engine.select(n, r, w, x, timeout, whole.get()); });
}

}  // namespace

namespace always {

int epoll_ctl(int ep, int op, int fd, epoll_event* e) {
  if ((is_kernel(ep) && is_kernel(fd)) || thread.inside()) [[likely]]
    return next.epoll_ctl(ep, op, fd, e);
  return enter([=](Engine& engine) { return engine.epoll_ctl(ep, op, fd, e); });
}

int poll(pollfd* p, nfds_t n, int timeout) {
  if (!any_ours(p, n) || thread.inside()) return next.poll(p, n, timeout);
  timespec t;
  return poll_ours(p, n, from_milliseconds(timeout, t), nullptr);
}

int ppoll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) {
  return any_ours(p, n) && !thread.inside() ? poll_ours(p, n, timeout, mask)
                                            : next.ppoll(p, n, timeout, mask);
}

int select(int n, fd_set* r, fd_set* w, fd_set* x, timeval* timeout) {
  if (!any_ours(n, r, w, x) || thread.inside()) return next.select(n, r, w, x, timeout);
  if (timeout == nullptr) return select_ours(n, r, w, x, nullptr, nullptr);
  if (timeout->tv_sec < 0 || timeout->tv_usec < 0) return translate(-EINVAL);
  // More microseconds than a second has are accepted here, and Linux leaves in *timeout what was not waited.
  const timespec wait{timeout->tv_sec + timeout->tv_usec / 1000000, (timeout->tv_usec % 1000000) * 1000};
  const timespec end = deadline(wait);
  const int ready = select_ours(n, r, w, x, &wait, nullptr);
  const timespec left = remaining(end);
  *timeout = {left.tv_sec, left.tv_nsec / 1000};
  return ready;
}

int pselect(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout, const sigset_t* mask) {
  return any_ours(n, r, w, x) ? select_ours(n, r, w, x, timeout, mask)
                              : next.pselect(n, r, w, x, timeout, mask);
}

// A buffer too small for what is asked: libc's own says so and ends the process.
int __poll_chk(pollfd* p, nfds_t n, int timeout, size_t room) {
  return room / sizeof(pollfd) < n ? next.__poll_chk(p, n, timeout, room) : always::poll(p, n, timeout);
}

int __ppoll_chk(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask, size_t room) {
  return room / sizeof(pollfd) < n ? next.__ppoll_chk(p, n, timeout, mask, room)
                                   : always::ppoll(p, n, timeout, mask);
}

}  // namespace always
}  // namespace mtcp::preload
