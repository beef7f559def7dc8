// Which descriptor is what: the engine's side of the shim's FdTable. Flat, lazily mapped, one entry per
// descriptor.
#pragma once

#include "intercept/engine.hh"

namespace mtcp::intercept {

struct Socket;
struct EpollSet;
struct Watchable;

struct File {
  Socket* socket = nullptr;  // FdKind::socket
  EpollSet* set = nullptr;   // FdKind::epoll
  bool close_on_exec =
      false;  // as the application sees it; the kernel's flag is on until exec for pooled descriptors
  bool meant_for_exec = false;  // FD_CLOEXEC has been taken off, or dup2 has put it here without: see life.cc
};

class Files {
 public:
  explicit Files(FdTable& table);
  ~Files();
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  // Null when the descriptor is not a socket / not an epoll set of ours.
  [[nodiscard]] Socket* socket(int fd) const {
    return table_.kind(fd) == FdKind::socket ? files_[fd].socket : nullptr;
  }
  [[nodiscard]] EpollSet* set(int fd) const {
    return table_.kind(fd) == FdKind::epoll ? files_[fd].set : nullptr;
  }
  // Either of them, or null.
  [[nodiscard]] Watchable* watchable(int fd) const;
  [[nodiscard]] File& operator[](int fd) { return files_[fd]; }
  void put_socket(int fd, Socket& s, bool close_on_exec);  // counts s.descriptors
  void put_set(int fd, EpollSet& s);  // does not count
  // `fd` must be below size(): take(), dup and accept see to it.
  void put_reserved(int fd);
  void clear(int fd);  // back to the kernel; does not count anything
  [[nodiscard]] FdKind kind(int fd) const { return table_.kind(fd); }
  [[nodiscard]] const FdTable& table() const { return table_; }
  [[nodiscard]] int size() const { return table_.size; }
  // One past the highest descriptor that has ever been ours: where a scan may stop.
  [[nodiscard]] int end() const { return end_; }

 private:
  FdTable& table_;
  File* files_ = nullptr;
  int end_ = 0;
};

}  // namespace mtcp::intercept
