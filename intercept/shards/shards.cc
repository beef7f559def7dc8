#include "intercept/shards/shards.hh"

#include <algorithm>
#include <memory>

#include "intercept/background/service_thread.hh"
#include "intercept/device/kernel_follower.hh"
#include "intercept/process.hh"

namespace mtcp::intercept {
namespace {

// Which shard a thread has. It ends with the thread, which may be after the engine's own things.
struct ThreadShard {
  const Shards* process = nullptr;
  std::uint32_t generation = 0;
  Shard* shard = nullptr;
  std::shared_ptr<std::atomic<unsigned>> threads;

  ThreadShard() = default;
  ThreadShard(const ThreadShard&) = delete;
  ThreadShard& operator=(const ThreadShard&) = delete;
  ~ThreadShard() { leave(); }
  void leave() {
    if (threads != nullptr) threads->fetch_sub(1, std::memory_order_relaxed);
    threads.reset();
    shard = nullptr;
  }
};
thread_local ThreadShard current;

}  // namespace

Shard::Shard(Process& of, unsigned number) : process(of), index(number), pool(of.kernel, of.files) {}

Shard::~Shard() = default;

Shards::Shards(Process& process) : first_(process, 0) {
  all_[0].store(&first_, std::memory_order_relaxed);
}

Shards::~Shards() {
  for (unsigned i = 1; i < count(); ++i) delete &(*this)[i];
}

Shard& Shards::add() {
  const unsigned i = count();
  auto* shard = new Shard(first_.process, i);
  shard->serials = first_.serials;
  shard->lock.lock();
  all_[i].store(shard, std::memory_order_release);
  count_.store(i + 1, std::memory_order_release);
  several_.store(true, std::memory_order_relaxed);
  for_each([i](Shard& s) { s.pool.keep_apart(i + 1); });
  return *shard;
}

Shard* Shards::of_thread() {
  const bool here = current.process == this && current.generation == generation_.load(std::memory_order_relaxed);
  return here ? current.shard : nullptr;
}

Shard& Shards::claim(unsigned most, unsigned& held) {
  if (Shard* own = of_thread(); own != nullptr) return *own;
  Shard* least = &first_;
  for_each([&](Shard& s) {
    if (s.threads->load(std::memory_order_relaxed) < least->threads->load(std::memory_order_relaxed)) least = &s;
  });
  if (least->threads->load(std::memory_order_relaxed) > 0 && count() < std::min(most, Shard::kMost)) {
    least = &add();
    ++held;
  }
  assign(*least);
  return *least;
}

void Shards::assign(Shard& shard) {
  current.leave();
  current.process = this;
  current.generation = generation_.load(std::memory_order_relaxed);
  current.shard = &shard;
  current.threads = shard.threads;
  shard.threads->fetch_add(1, std::memory_order_relaxed);
}

void Shards::align_serials() {
  std::uint64_t most = 0;
  for_each([&](const Shard& s) { most = std::max(most, s.serials); });
  for_each([&](Shard& s) { s.serials = most; });
}

// Not destroyed: sockets of this process are in their memory, and their threads and packets are the parent's.
void Shards::forget_others() {
  generation_.fetch_add(1, std::memory_order_relaxed);
  first_.threads = std::make_shared<std::atomic<unsigned>>(0);
  first_.pool.keep_apart(1);
  for (unsigned i = 1; i < count(); ++i) all_[i].store(nullptr, std::memory_order_relaxed);
  count_.store(1, std::memory_order_relaxed);
  several_.store(false, std::memory_order_relaxed);
  one_at_a_time = false;
}

unsigned Shards::lock_all() {
  first_.lock.lock();
  const unsigned n = count();  // changes with this lock held
  for (unsigned i = 1; i < n; ++i) (*this)[i].lock.lock();
  return n;
}

bool Shards::try_lock_all(unsigned& count_locked) {
  count_locked = 0;
  while (count_locked < count()) {
    if (!(*this)[count_locked].lock.try_lock()) {
      unlock_all(count_locked);
      return false;
    }
    ++count_locked;
  }
  return true;
}

void Shards::unlock_all(unsigned locked) {
  for (unsigned i = locked; i-- > 0;) (*this)[i].lock.unlock();
}

}  // namespace mtcp::intercept
