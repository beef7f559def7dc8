#include "intercept/descriptors/dup.hh"

#include <errno.h>
#include <fcntl.h>

#include "intercept/call.hh"

namespace mtcp::intercept {
namespace {

// The kernel has made `fd` another number for what `from` is: so do we.
void adopt(Process& process, int from, int fd, bool close_on_exec) {
  if (Socket* s = process.files.socket(from); s != nullptr) {
    process.files.put_socket(fd, *s, close_on_exec);
    return;
  }
  EpollSet* set = process.files.set(from);
  ++set->descriptors;
  process.files.put_set(fd, *set);
}

bool is_ours(Process& process, int fd) {
  return process.files.socket(fd) != nullptr || process.files.set(fd) != nullptr;
}

// Takes what is ours away from a number that dup2 is about to give another meaning. The number itself stays
// open until the kernel replaces it.
void vacate(Process& process, int fd) {
  if (Socket* s = process.files.socket(fd); s != nullptr) {
    if (s->fd == fd && s->descriptors > 1) {
      for (int other = 0; other < process.files.end(); ++other) {
        if (other != fd && process.files.socket(other) == s) s->fd = other;
      }
    }
    process.files.clear(fd);
    process.drop_descriptor(*s);
  } else if (EpollSet* set = process.files.set(fd); set != nullptr) {
    process.files.clear(fd);
    process.drop_set_descriptor(*set);
  }
}

}  // namespace

int dup_to_free(Process& process, int fd, int least, bool close_on_exec) {
  const bool socket = process.files.socket(fd) != nullptr;
  // Behind a socket of ours FD_CLOEXEC is on in the kernel until exec; an epoll set has the application's
  // own.
  const int command = socket || close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD;
  const int made = process.kernel.fcntl(fd, command, least);
  if (made < 0) return made;
  if (made >= process.files.size()) {
    (void)process.kernel.close(made);
    return -EMFILE;
  }
  if (is_ours(process, fd)) adopt(process, fd, made, close_on_exec);
  return made;
}

int Process::dup(int fd) {
  const Guard guard(*this, Guard::Everything{});
  return dup_to_free(*this, fd, 0, false);
}

int Process::dup3(int from, int to, int flags, bool dup2_semantics) {
  const Guard guard(*this, Guard::Everything{});
  if ((flags & ~O_CLOEXEC) != 0) return -EINVAL;
  // Numbers that are no descriptors, and a descriptor onto itself, are judged by the kernel.
  const bool ordinary = from != to && to >= 0 && to < files.size() && from >= 0 && from < files.size();
  if (!ordinary) {
    if (from == to && dup2_semantics && is_ours(*this, from)) return to;
    if (from == to && !dup2_semantics) return -EINVAL;
    return kernel.dup3(from, to, flags);
  }
  if (files.kind(from) == FdKind::reserved) return -EBADF;  // not the application's to duplicate
  if (!is_ours(*this, from) && kernel.fcntl(from, F_GETFD, 0) < 0) return -EBADF;  // then `to` stays open
  if (files.kind(to) == FdKind::reserved) {
    // The application takes this number for itself. A spare socket makes room; anything else is in use by the
    // engine.
    bool spare = false;
    shards.for_each([&](Shard& s) { spare = spare || s.pool.release(to); });
    if (!spare) return -EBUSY;
    files.clear(to);
  }
  const bool from_socket = files.socket(from) != nullptr;
  const bool close_on_exec = (flags & O_CLOEXEC) != 0;
  vacate(*this, to);
  heritage.tell_closed();
  const int result = kernel.dup3(from, to, from_socket ? O_CLOEXEC : flags);
  if (result < 0) return result;
  if (is_ours(*this, from)) adopt(*this, from, to, close_on_exec);
  if (from_socket) files[to].meant_for_exec = !close_on_exec;
  return to;
}

}  // namespace mtcp::intercept
