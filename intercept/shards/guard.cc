#include "intercept/shards/guard.hh"

#include <algorithm>

#include "intercept/process.hh"

namespace mtcp::intercept {

// An entry of the descriptor table belongs to the shard that has made it, as long as it is ours. So when the entry is seen to be
// of a shard, with that one's lock held, it stays so.
void Guard::lock_descriptor(Process& process, int fd) {
  Files& files = process.files;
  Shards& all = process.shards;  // without a look at any shard but the one that it is
  for (;;) {
    const unsigned owner = files.owner(fd);
    if (owner >= all.count()) break;
    shard_ = &all[owner];
    shard_->lock.lock();
    const bool ours = files.watchable(fd) != nullptr;
    const bool same = files.owner(fd) == owner;
    if (ours && same && !all.one_at_a_time) {
      holding_ = Holding::one;
      return;
    }
    shard_->lock.unlock();
    if (same) break;
  }
  lock_all();
  const Watchable* w = files.watchable(fd);
  shard_ = w != nullptr && w->shard != nullptr ? w->shard : &all.first();
}

// Sets and undecided sockets may change their shard while the call waits.
Guard::Guard(Process& process, std::span<const pollfd> fds) : shard_(&process.first()), holding_(Holding::nothing) {
  if (process.shards.several()) {
    for (const pollfd& p : fds) {
      const unsigned owner = process.files.owner(p.fd);
      if (process.files.watchable(p.fd) == nullptr) continue;
      if (owner < process.shards.count()) shard_ = &process.shards[owner];
      break;
    }
  }
  lock();
  cover(fds);
  for (const pollfd& p : fds) {
    const Watchable* w = process.files.watchable(p.fd);
    if (w == nullptr) continue;
    const bool settled = w->watchable_type == Watchable::Type::socket && static_cast<const Socket*>(w)->state != Socket::State::undecided;
    follows_all_ = follows_all_ || !settled;
  }
  if (follows_all_ && shards().several()) widen();
}

void Guard::cover(std::span<const pollfd> fds) {
  if (all_ || !shards().several()) return;
  const Files& files = process().files;
  const bool covers = std::ranges::none_of(fds, [&](const pollfd& p) { return files.watchable(p.fd) != nullptr && files.owner(p.fd) != shard_->index; });
  if (!covers) widen();
}

Guard::Guard(Process& process, Everything) : shard_(&process.first()), holding_(Holding::nothing) { lock_all(); }

Guard::Guard(Process& process, std::adopt_lock_t)
    : shard_(&process.first()), holding_(Holding::all), locks_(static_cast<std::uint8_t>(process.shards.count())), all_(true) {}

Guard::Guard(Shard& shard) : shard_(&shard), holding_(Holding::nothing) { lock(); }

Guard::Guard(Shard& shard, std::try_to_lock_t) : shard_(&shard), holding_(Holding::nothing) {
  if (!shard_->lock.try_lock()) return;
  holding_ = Holding::one;
  if (!shards().one_at_a_time) return;
  shard_->lock.unlock();
  unsigned locked = 0;
  all_ = shards().try_lock_all(locked);
  holding_ = all_ ? Holding::all : Holding::nothing;
  locks_ = static_cast<std::uint8_t>(locked);
}

// Some shard is not the first, or was not when this call began.
void Guard::lock_again() {
  for (;;) {
    const bool mixed = follows_ && subject_->shard == nullptr;
    if (mixed || follows_all_ || shards().one_at_a_time) break;
    if (!follows_ || subject_->shard == shard_) return;
    // Changed with this lock held, so seen; it may change again before the other is had.
    Shard* now = subject_->shard;
    shard_->lock.unlock();
    shard_ = now;
    shard_->lock.lock();
  }
  shard_->lock.unlock();
  lock_all();
}

void Guard::lock_all() {
  locks_ = static_cast<std::uint8_t>(shards().lock_all());
  holding_ = Holding::all;
  all_ = true;
}

void Guard::widen_now() {
  if (holding_ == Holding::one && !shards().several()) {  // it is all that there is
    locks_ = 1;
    holding_ = Holding::all;
    all_ = true;
    return;
  }
  unlock();
  lock_all();
}

void Guard::narrow(Shard& shard) {
  if (!all_) return;
  shard_ = &shard;
  shards().one_at_a_time = process().needs_one_at_a_time();
  const bool elsewhere = follows_ && subject_->shard != &shard;
  if (shards().one_at_a_time || elsewhere || follows_all_) return;
  for (unsigned i = locks_; i-- > 0;) {
    if (&shards()[i] != &shard) shards()[i].lock.unlock();
  }
  holding_ = Holding::one;
  all_ = false;
}

void Guard::unlock_all() {
  if (shards().several()) shards().one_at_a_time = process().needs_one_at_a_time();
  holding_ = Holding::nothing;
  shards().unlock_all(locks_);
}

Shard& Guard::claim_shard(unsigned most) {
  unsigned locks = locks_;
  Shard& own = shards().claim(most, locks);
  locks_ = static_cast<std::uint8_t>(locks);
  return own;
}

}  // namespace mtcp::intercept
