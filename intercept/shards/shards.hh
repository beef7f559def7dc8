// The stacks of a process. There is one until a second thread listens, and at most Options::stacks.
//
// Locks. A call of the application takes the lock of the one shard that its descriptor belongs to (Guard). What belongs to no one
// shard (Process's own members, epoll sets with members in several shards) is changed with the locks of all shards held, and read
// with any of them: so who holds one can rely on it. All locks are taken in the order of their numbers, and who has one gives
// it up before.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "intercept/shards/shard.hh"

namespace mtcp::intercept {

class Shards {
 public:
  explicit Shards(Process& process);
  ~Shards();
  Shards(const Shards&) = delete;
  Shards& operator=(const Shards&) = delete;

  [[nodiscard]] Shard& first() { return first_; }
  // More than one. It never becomes less; after a fork the child begins with one again.
  [[nodiscard]] bool several() const { return several_.load(std::memory_order_relaxed); }
  [[nodiscard]] unsigned count() const { return count_.load(std::memory_order_acquire); }
  [[nodiscard]] Shard& operator[](unsigned i) { return *all_[i].load(std::memory_order_acquire); }
  template <typename Visit>
  void for_each(Visit visit) {
    for (unsigned i = 0, n = count(); i < n; ++i) visit((*this)[i]);
  }

  // --- all locks held
  // A new one, with its lock taken.
  Shard& add();
  // The shard of the calling thread, which has one from now on: a free one, a new one if there are fewer than `most`, or the one
  // that the fewest threads have. `held`: how many locks are held, one more if there is a new one.
  Shard& claim(unsigned most, unsigned& held);
  // The calling thread has this one from now on.
  void assign(Shard& shard);
  // Before a fork: see Shard::next_serial().
  void align_serials();
  // In the child of a fork: the others' threads are not here.
  void forget_others();

  // --- no lock needed
  // That of the calling thread; null: none so far.
  [[nodiscard]] Shard* of_thread();

  // --- how all locks are taken and given back. lock_all() says how many there are.
  unsigned lock_all();
  bool try_lock_all(unsigned& count);
  void unlock_all(unsigned count);

  // Something of the process is in use that belongs to no one shard (connections that several processes have): every call
  // takes all locks. Changed with all of them held.
  bool one_at_a_time = false;

 private:
  Shard first_;
  // Read by every call of every thread: not beside what one of them writes.
  alignas(64) std::atomic<bool> several_{false};
  std::atomic<unsigned> count_{1};
  std::atomic<std::uint32_t> generation_{0};  // of the process: a child's is another one
  std::array<std::atomic<Shard*>, Shard::kMost> all_{};
};

}  // namespace mtcp::intercept
