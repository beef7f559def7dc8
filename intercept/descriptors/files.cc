#include "intercept/descriptors/files.hh"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "intercept/descriptors/socket.hh"
#include "intercept/waiting/epoll.hh"

namespace mtcp::intercept {

Files::Files(FdTable& table) : table_(table) {
  // Zero pages are empty Files; only those that are touched cost memory.
  void* p = ::mmap(nullptr, static_cast<std::size_t>(table.size) * sizeof(File), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();  // no address space at all: nothing that follows could work
  files_ = static_cast<File*>(p);
}

Files::~Files() { ::munmap(files_, static_cast<std::size_t>(table_.size) * sizeof(File)); }

Watchable* Files::watchable(int fd) const {
  if (Socket* s = socket(fd); s != nullptr) return s;
  return set(fd);
}

void Files::put_socket(int fd, Socket& s, bool close_on_exec) {
  files_[fd] = {&s, nullptr, close_on_exec, false};
  ++s.descriptors;
  end_ = std::max(end_, fd + 1);
  table_.set(fd, FdKind::socket);
}

void Files::put_set(int fd, EpollSet& s) {
  files_[fd] = {nullptr, &s, false, false};
  end_ = std::max(end_, fd + 1);
  table_.publish(fd, FdKind::epoll);
}

void Files::put_reserved(int fd) {
  files_[fd] = {};
  end_ = std::max(end_, fd + 1);
  table_.set(fd, FdKind::reserved);
}

void Files::clear(int fd) {
  table_.set(fd, FdKind::kernel);
  files_[fd] = {};
}

}  // namespace mtcp::intercept
