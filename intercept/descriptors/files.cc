#include "intercept/descriptors/files.hh"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "intercept/waiting/epoll.hh"
#include "intercept/shards/shard.hh"
#include "intercept/descriptors/socket.hh"

namespace mtcp::intercept {

Files::Files(FdTable& table) : table_(table) {
  // Zero pages are empty Files; only those that are touched cost memory.
  void* p = ::mmap(nullptr, memory_for(table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();  // who makes the engine has seen that there was enough (entry.cc)
  files_ = static_cast<File*>(p);
}

Files::~Files() { ::munmap(files_, memory_for(table_)); }

Watchable* Files::watchable(int fd) const {
  if (Socket* s = socket(fd); s != nullptr) return s;
  return set(fd);
}

void Files::change_owner(const Watchable& w) {
  for (int fd = 0; fd < end(); ++fd) {
    if (watchable(fd) == &w) change_owner(fd, w);
  }
}

void Files::change_owner(int fd, const Watchable& w) {
  files_[fd].owner.store(w.shard != nullptr ? static_cast<std::uint8_t>(w.shard->index) : kManyOwners, std::memory_order_release);
}

// Grows only; several shards may put descriptors at the same time.
void Files::reach(std::atomic<int>& end, int fd) {
  int seen = end.load(std::memory_order_relaxed);
  while (seen <= fd && !end.compare_exchange_weak(seen, fd + 1, std::memory_order_relaxed)) {
  }
}

// The owner first: who sees the new pointer sees whose it is.
void Files::put(int fd, Socket* s, EpollSet* set, const Shard* owner, bool close_on_exec) {
  File& f = files_[fd];
  f.close_on_exec = close_on_exec;
  f.meant_for_exec = false;
  f.owner.store(owner != nullptr ? static_cast<std::uint8_t>(owner->index) : kManyOwners, std::memory_order_release);
  f.set.store(set, std::memory_order_release);
  f.socket.store(s, std::memory_order_release);
  reach(end_, fd);
}

void Files::put_socket(int fd, Socket& s, bool close_on_exec) {
  put(fd, &s, nullptr, s.shard, close_on_exec);
  ++s.descriptors;
  table_.set(fd, FdKind::socket);
}

void Files::put_set(int fd, EpollSet& s) {
  put(fd, nullptr, &s, s.shard, false);
  table_.publish(fd, FdKind::epoll);
}

void Files::put_reserved(int fd) {
  forget(fd);
  reach(end_of_reserved_, fd);
  table_.set(fd, FdKind::reserved);
}

void Files::clear(int fd) {
  table_.set(fd, FdKind::kernel);
  forget(fd);
}

void Files::forget(int fd) {
  files_[fd].socket.store(nullptr, std::memory_order_relaxed);
  files_[fd].set.store(nullptr, std::memory_order_relaxed);
}

}  // namespace mtcp::intercept
