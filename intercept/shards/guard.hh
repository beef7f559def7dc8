// What a call of the application holds while it is inside: the lock of one shard, or those of all.
#pragma once

#include <poll.h>

#include <cstdint>
#include <mutex>
#include <span>

#include "intercept/shards/shards.hh"

namespace mtcp::intercept {

class Process;

class Guard {
 public:
  struct Everything {};
  // Of the shard that the descriptor belongs to; all if it is an epoll set with members in several, or nothing of ours.
  Guard(Process& process, int fd);
  // The same for several descriptors.
  Guard(Process& process, std::span<const pollfd> fds);
  explicit Guard(Shard& shard);
  Guard(Process& process, Everything);
  // If nobody has it.
  Guard(Shard& shard, std::try_to_lock_t);
  // All of them, which the calling thread has taken before a fork.
  Guard(Process& process, std::adopt_lock_t);
  ~Guard() { unlock(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // Nothing, if nothing is held.
  void unlock() {
    if (holding_ == Holding::one) [[likely]] {
      holding_ = Holding::nothing;
      shard_->lock.unlock();
    } else if (holding_ == Holding::all) {
      unlock_all();
    }
  }
  // The same as before; all if that is needed by now.
  void lock();
  [[nodiscard]] bool owns_lock() const { return holding_ != Holding::nothing; }
  // They stay taken.
  void release() { holding_ = Holding::nothing; }

  // All of them. What was seen before may have changed meanwhile, unless it is held.
  void widen() {
    if (!all_) widen_now();
  }
  // All of them, if what is ours of these is not all of the shard that is held.
  void cover(std::span<const pollfd> fds);
  // Only that of `shard` from now on, unless all are needed. The call is about that one from now on.
  void narrow(Shard& shard);
  // All are held, and the call is about this one.
  void be_about(Shard& shard) { shard_ = &shard; }
  // A call waits for `w`, which it holds: after a sleep the guard is of the shard that it belongs to then.
  void follow(const Watchable& w) {
    subject_ = &w;
    follows_ = true;
  }
  void stop_following() { follows_ = false; }
  // A call waits for things that may change their shard: all locks, once there are several.
  void follow_all() { follows_all_ = true; }
  // This thread's own shard, from now on. All locks are held.
  Shard& claim_shard(unsigned most);

  [[nodiscard]] bool all() const { return all_; }
  // What is behind a descriptor, if it is ours and covered. So it stays as long as the lock is held.
  [[nodiscard]] Watchable* covered(int fd) const;
  // The one that is held, or of all the one that the call is about.
  [[nodiscard]] Shard& shard() const { return *shard_; }
  template <typename Visit>
  void for_each(Visit visit) const {
    if (!all_ || locks_ == 1) [[likely]] return visit(*shard_);
    visit_all(visit);
  }

 private:
  enum class Holding : std::uint8_t { nothing, one, all };
  [[nodiscard]] Process& process() const { return shard_->process; }
  [[nodiscard]] Shards& shards() const;
  template <typename Visit>
  void visit_all(Visit visit) const;
  void lock_descriptor(Process& process, int fd);
  void lock_again();
  void lock_all();
  void widen_now();
  void unlock_all();

  // Each call makes one: few words, written at once.
  Shard* shard_;
  const Watchable* subject_;  // if follows_
  Holding holding_;
  std::uint8_t locks_ = 0;  // how many, of `all`
  bool all_ = false;        // what lock() takes; so what is held, if anything is
  bool follows_all_ = false;
  bool follows_ = false;
};

}  // namespace mtcp::intercept
