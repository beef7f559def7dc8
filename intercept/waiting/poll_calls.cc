// poll and select over a mixture of the stack's and the kernel's descriptors.
#include <errno.h>

#include <algorithm>
#include <array>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/memory.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

// One poll(2) while it runs: which entries are ours, and a copy of the rest for the kernel.
class PollCall {
 public:
  PollCall(Process& process, const Guard& guard, std::span<pollfd> fds) : process_(process), fds_(fds) {
    for (std::size_t i = 0; i < fds.size(); ++i) {
      fds[i].revents = 0;
      if (fds[i].fd < 0) continue;
      if (process.files.kind(fds[i].fd) == FdKind::reserved) {  // closed, as far as the application knows
        closed_.push_back(i);
        continue;
      }
      Watchable* w = guard.covered(fds[i].fd);
      const bool socket = w != nullptr && w->watchable_type == Watchable::Type::socket;
      if (socket) claim_if_foreign(process, static_cast<Socket&>(*w));
      if (socket && static_cast<Socket&>(*w).state == Socket::State::relayed) w = nullptr;  // the kernel's
      if (w != nullptr) {
        ours_.push_back({w, i, socket && static_cast<Socket*>(w)->kernel_listens});
        socket ? process.hold(static_cast<Socket&>(*w)) : process.hold(static_cast<EpollSet&>(*w));
        show_interest(*w);
      }
      // An epoll set and a dual listener have a side in the kernel, too.
      if (w == nullptr || !socket || ours_.back().dual) {
        kernel_.push_back(
            {fds[i].fd, w == nullptr ? fds[i].events : static_cast<short>(fds[i].events & kReadable), 0});
        kernel_index_.push_back(i);
        kernel_targets_.push_back(w);
      }
      if (w != nullptr && socket && static_cast<Socket*>(w)->local_fd >= 0) {
        kernel_.push_back({static_cast<Socket*>(w)->local_fd, static_cast<short>(fds[i].events & kReadable), 0});
        kernel_index_.push_back(i);
        kernel_targets_.push_back(w);
      }
    }
  }
  ~PollCall() {
    waiters_.clear();
    for (Socket* s : listeners_) process_.end_wait_for(*s);
    for (const Ours& o : ours_) {
      if (o.target->watchable_type == Watchable::Type::socket) {
        process_.release(static_cast<Socket&>(*o.target));
      } else {
        process_.release(static_cast<EpollSet&>(*o.target));
      }
    }
  }
  PollCall(const PollCall&) = delete;
  PollCall& operator=(const PollCall&) = delete;

  // Fills in revents; returns how many entries have some, or -errno of the kernel.
  int check(bool with_kernel) {
    for (const Ours& o : ours_) {
      const auto wanted = static_cast<std::uint32_t>(static_cast<unsigned short>(fds_[o.index].events));
      fds_[o.index].revents =
          static_cast<short>(events_of(*o.target) & (wanted | EPOLLERR | EPOLLHUP) & 0xffff);
    }
    if (with_kernel && !kernel_.empty()) {
      skip_closed();
      const timespec zero{};
      const int n = process_.kernel.ppoll(kernel_.data(), kernel_.size(), &zero, nullptr);
      if (n < 0) return n;
      for (std::size_t i = 0; n > 0 && i < kernel_.size(); ++i) {
        fds_[kernel_index_[i]].revents =
            static_cast<short>(fds_[kernel_index_[i]].revents | kernel_[i].revents);
      }
    }
    for (const std::size_t i : closed_) fds_[i].revents = POLLNVAL;
    int count = 0;
    for (const pollfd& p : fds_) count += p.revents != 0 ? 1 : 0;
    return count;
  }

  void attach(Sleeper& sleeper) {
    waiters_.clear();
    for (const Ours& o : ours_) {
      PollWaiter& waiter = waiters_.emplace_back();
      waiter.sleeper = &sleeper;
      waiter.events = static_cast<unsigned short>(fds_[o.index].events) | EPOLLERR | EPOLLHUP;
      o.target->watchers.push_back(waiter);
    }
  }
  void detach() { waiters_.clear(); }
  [[nodiscard]] std::span<pollfd> kernel_fds() {
    skip_closed();
    return kernel_;
  }

 private:
  void show_interest(Watchable& w) {
    if (w.watchable_type == Watchable::Type::epoll_set) {
      if (auto& set = static_cast<EpollSet&>(w); set.interest_seen != process_.interest_version.load(std::memory_order_relaxed)) process_.want_members(set);
    } else if (auto& s = static_cast<Socket&>(w); s.state == Socket::State::listening) {
      process_.begin_wait_for(s);
      listeners_.push_back(&s);
    }
  }

  // What another thread has closed since may be something else's number by now: its kernel side is gone. So is a listener's
  // Unix socket after shutdown().
  void skip_closed() {
    for (std::size_t i = 0; i < kernel_.size(); ++i) {
      const int fd = kernel_[i].fd, asked = fds_[kernel_index_[i]].fd;
      const Watchable* target = kernel_targets_[i];
      if (fd < 0 || target == nullptr) continue;
      const bool closed = process_.files.watchable(asked) != target;
      const bool beside = fd != asked && static_cast<const Socket*>(target)->local_fd != fd;
      if (closed || beside) kernel_[i].fd = -1;
    }
  }

  static constexpr int kReadable = POLLIN | POLLRDNORM | POLLRDBAND | POLLPRI;
  struct Ours {
    Watchable* target;
    std::size_t index;
    bool dual;
  };
  Process& process_;
  std::span<pollfd> fds_;
  std::vector<Ours> ours_;
  std::vector<std::size_t> closed_;
  std::vector<pollfd> kernel_;
  std::vector<std::size_t> kernel_index_;
  std::vector<Watchable*> kernel_targets_;  // null: a descriptor that is the kernel's alone
  std::vector<Socket*> listeners_;
  std::deque<PollWaiter> waiters_;  // a waiter is linked where it is: it must not move
};

bool needs_stack(Process& process, const Guard& guard, std::span<const pollfd> fds) {
  for (const pollfd& p : fds) {
    Watchable* w = p.fd < 0 ? nullptr : guard.covered(p.fd);
    if (w == nullptr) continue;
    if (w->watchable_type == Watchable::Type::socket) {
      if (static_cast<const Socket*>(w)->state == Socket::State::listening) return true;
    } else if (process.want_members(static_cast<EpollSet&>(*w))) {
      return true;
    }
  }
  return false;
}

// Whether there is memory for a call with so many descriptors; for a few there always is (memory.hh).
bool has_room_for(std::size_t descriptors) {
  constexpr std::size_t kFew = 1024, kEach = 256;  // bytes, with what vectors leave behind while they grow
  return descriptors <= kFew || memory_available(descriptors * kEach);
}

// The select(2) sets as arrays of words, of any length.
constexpr int kWordBits = 8 * sizeof(unsigned long);
bool has_bit(const fd_set* set, int fd) {
  if (set == nullptr) return false;
  return (reinterpret_cast<const unsigned long*>(set)[fd / kWordBits] >> (fd % kWordBits) & 1UL) != 0;
}
void clear_bits(fd_set* set, int n) {
  if (set == nullptr) return;
  auto* words = reinterpret_cast<unsigned long*>(set);
  for (int i = 0; i * kWordBits < n; ++i) words[i] = 0;
}
void set_bit(fd_set* set, int fd) {
  reinterpret_cast<unsigned long*>(set)[fd / kWordBits] |= 1UL << (fd % kWordBits);
}

}  // namespace

int Process::poll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) {
  const std::span fds(p, n);
  if (!has_room_for(n) && !has_room_for(static_cast<std::size_t>(std::ranges::count_if(fds, [](const pollfd& f) { return f.fd >= 0; }))))
    return -ENOMEM;
  Guard guard(*this, fds);
  if ((guard.shard().instance == nullptr || guard.all()) && needs_stack(*this, guard, fds))
    (void)ensure_started(guard);  // it has said why; listeners stay silent
  WaitLoop wait(*this, guard, deadline_of(timeout, now()), mask);
  if (mask != nullptr) guard.cover(fds);  // the lock was given up
  if (guard.shard().instance == nullptr && needs_stack(*this, guard, fds)) wait.require_stack();
  std::optional<PollCall> call(std::in_place, *this, guard, fds);
  std::uint64_t seen = conversions;
  stack::Time checked{};
  bool first = true;
  for (;;) {
    wait.turn();
    if (seen != conversions) {  // what was ours may be the kernel's now
      call.emplace(*this, guard, fds);
      seen = conversions;
      first = true;
    }
    const bool with_kernel = first || wait.kernel_due(checked);
    if (with_kernel) checked = wait.now();
    first = false;
    const int count = call->check(with_kernel);
    if (count != 0) return count;
    const int result = wait.idle(call->kernel_fds(), [&](Sleeper& s) { call->attach(s); });
    call->detach();
    if (result == -EAGAIN) return 0;
    if (result != 0) return result;
  }
}

int Process::select(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout, const sigset_t* mask) {
  constexpr short kRead = POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR;
  constexpr short kWrite = POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR;
  std::size_t asked = 0;
  for (int fd = 0; fd < n; ++fd) asked += has_bit(r, fd) || has_bit(w, fd) || has_bit(x, fd) ? 1 : 0;
  if (!has_room_for(asked)) return -ENOMEM;
  std::vector<pollfd> fds;
  fds.reserve(asked);
  for (int fd = 0; fd < n; ++fd) {
    short events = 0;
    if (has_bit(r, fd)) events |= POLLIN | POLLRDNORM | POLLRDBAND;
    if (has_bit(w, fd)) events |= POLLOUT | POLLWRNORM | POLLWRBAND;
    if (has_bit(x, fd)) events |= POLLPRI;
    if (events != 0) fds.push_back({fd, events, 0});
  }
  const int polled = poll(fds.data(), fds.size(), timeout, mask);
  if (polled < 0) return polled;
  for (const pollfd& p : fds) {
    if ((p.revents & POLLNVAL) != 0) return -EBADF;
  }
  // What counts as ready for each of the three sets is fs/select.c's choice (POLLIN_SET, POLLOUT_SET,
  // POLLEX_SET).
  struct Side {
    const fd_set* asked;
    fd_set* out;
    short mask;
  };
  std::vector<std::array<bool, 3>> hits(fds.size());
  int count = 0;
  for (std::size_t i = 0; i < fds.size(); ++i) {
    const std::array<Side, 3> sides{{{r, r, kRead}, {w, w, kWrite}, {x, x, POLLPRI}}};
    for (std::size_t side = 0; side < 3; ++side) {
      hits[i][side] = has_bit(sides[side].asked, fds[i].fd) && (fds[i].revents & sides[side].mask) != 0;
      count += hits[i][side] ? 1 : 0;
    }
  }
  for (fd_set* set : {r, w, x}) clear_bits(set, n);
  const std::array<fd_set*, 3> sets{r, w, x};
  for (std::size_t i = 0; i < fds.size(); ++i) {
    for (std::size_t side = 0; side < 3; ++side) {
      if (hits[i][side]) set_bit(sets[side], fds[i].fd);
    }
  }
  return count;
}

}  // namespace mtcp::intercept
