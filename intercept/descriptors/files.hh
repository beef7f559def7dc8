// Which descriptor is what: the engine's side of the shim's FdTable. Flat, lazily mapped, one entry per
// descriptor.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "intercept/engine.hh"

namespace mtcp::intercept {

struct Socket;
struct EpollSet;
struct Watchable;
struct Shard;

// The pointers and the owner may be read without a lock, to find out which lock that is (Guard); the rest is covered by it.
struct File {
  std::atomic<Socket*> socket{nullptr};  // FdKind::socket
  std::atomic<EpollSet*> set{nullptr};   // FdKind::epoll
  std::atomic<std::uint8_t> owner{0};    // number of the shard, or kManyOwners
  bool close_on_exec =
      false;  // as the application sees it; the kernel's flag is on until exec for pooled descriptors
  bool meant_for_exec = false;  // FD_CLOEXEC has been taken off, or dup2 has put it here without: see life.cc
};

class Files {
 public:
  // What it takes of the address space. Without so much there is nothing to be done.
  [[nodiscard]] static std::size_t memory_for(const FdTable& table) { return static_cast<std::size_t>(table.size) * sizeof(File); }
  explicit Files(FdTable& table);
  ~Files();
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  // Null when the descriptor is not a socket / not an epoll set of ours.
  [[nodiscard]] Socket* socket(int fd) const {
    return table_.kind(fd) == FdKind::socket ? files_[fd].socket.load(std::memory_order_acquire) : nullptr;
  }
  [[nodiscard]] EpollSet* set(int fd) const {
    return table_.kind(fd) == FdKind::epoll ? files_[fd].set.load(std::memory_order_acquire) : nullptr;
  }
  // Either of them, or null.
  [[nodiscard]] Watchable* watchable(int fd) const;
  // Of an epoll set with members in several shards.
  static constexpr std::uint8_t kManyOwners = 255;
  // Which shard's lock covers the descriptor, if it is ours.
  [[nodiscard]] unsigned owner(int fd) const {
    if (static_cast<unsigned>(fd) >= static_cast<unsigned>(table_.size)) return 0;
    return files_[fd].owner.load(std::memory_order_acquire);
  }
  // All descriptors of `w` are its shard's now. With all locks held.
  void change_owner(const Watchable& w);
  void change_owner(int fd, const Watchable& w);
  [[nodiscard]] File& operator[](int fd) { return files_[fd]; }
  void put_socket(int fd, Socket& s, bool close_on_exec);  // counts s.descriptors
  void put_set(int fd, EpollSet& s);  // does not count
  // `fd` must be below size(): take(), dup and accept see to it.
  void put_reserved(int fd);
  void clear(int fd);  // back to the kernel; does not count anything
  [[nodiscard]] FdKind kind(int fd) const { return table_.kind(fd); }
  [[nodiscard]] const FdTable& table() const { return table_; }
  [[nodiscard]] int size() const { return table_.size; }
  // One past the highest descriptor that has ever been a socket or set of ours: where a scan may stop. Reserved ones, whose numbers
  // are high, have an end of their own.
  [[nodiscard]] int end() const { return end_.load(std::memory_order_relaxed); }
  [[nodiscard]] int end_of_reserved() const { return end_of_reserved_.load(std::memory_order_relaxed); }

 private:
  static void reach(std::atomic<int>& end, int fd);
  void forget(int fd);
  void put(int fd, Socket* s, EpollSet* set, const Shard* owner, bool close_on_exec);
  FdTable& table_;
  File* files_ = nullptr;
  std::atomic<int> end_{0}, end_of_reserved_{0};
};

}  // namespace mtcp::intercept
