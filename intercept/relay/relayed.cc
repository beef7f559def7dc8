#include "intercept/relay/relayed.hh"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "intercept/process.hh"

namespace mtcp::intercept {

int put_behind(Process& process, Socket& s, int kernel_fd) {
  int result = 0;
  const int first = s.descriptors == 1 ? s.fd : 0;
  const int end = s.descriptors == 1 ? s.fd + 1 : process.files.end();
  for (int fd = first; fd < end; ++fd) {
    if (process.files.socket(fd) != &s) continue;
    if (const int error = process.kernel.dup3(kernel_fd, fd, O_CLOEXEC); error < 0) result = error;
  }
  return result;
}

int become_relayed(Process& process, Socket& s, int user) {
  const int result = put_behind(process, s, user);
  s.state = Socket::State::relayed;
  s.connection = nullptr;
  s.kernel_dirty = true;  // a closed one is no spare socket
  if (s.nonblocking != is_nonblocking(process, s))
    (void)process.kernel.fcntl(s.fd, F_SETFL, O_RDWR | (s.nonblocking ? O_NONBLOCK : 0));
  process.move_to_kernel(s, false);
  for (Watcher* w = s.watchers.front(); w != nullptr; w = s.watchers.next(*w)) {
    if (w->kind == Watcher::Kind::poll_waiter) static_cast<PollWaiter*>(w)->sleeper->wake();
  }
  ++process.conversions;
  return result;
}

void claim_if_foreign(Process& process, Socket& s) {
  if (s.state == Socket::State::foreign) (void)process.heritage.claim(s);
}

void claim_members(Process& process, EpollSet& set) {
  set.inherited = false;
  std::vector<Socket*> members;
  for (EpollItem* i = set.items.front(); i != nullptr; i = set.items.next(*i)) {
    if (i->target->watchable_type == Watchable::Type::socket)
      members.push_back(static_cast<Socket*>(i->target));
  }
  for (Socket* s : members) {
    claim_if_foreign(process, *s);
    if (s->state == Socket::State::relayed) process.move_to_kernel(*s, false);
  }
}

bool is_nonblocking(Process& process, const Socket& s) {
  const int flags = process.kernel.fcntl(s.fd, F_GETFL, 0);
  return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

ssize_t receive_relayed(Process& process, const Socket& s, std::span<const iovec> v, int flags) {
  msghdr m{};
  m.msg_iov = const_cast<iovec*>(v.data());
  m.msg_iovlen = v.size();
  return process.kernel.recvmsg(s.fd, &m, (flags & MSG_PEEK) | MSG_DONTWAIT);
}

ssize_t send_relayed(Process& process, const Socket& s, std::span<const iovec> v) {
  msghdr m{};
  m.msg_iov = const_cast<iovec*>(v.data());
  m.msg_iovlen = v.size();
  const ssize_t sent = process.kernel.sendmsg(s.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent != -EPIPE) return sent;
  const int error = take_relayed_error(process, s);  // TCP tells of a reset first
  return error != 0 ? -error : sent;
}

int take_relayed_error(Process& process, const Socket& s) {
  int error = 0;
  socklen_t size = sizeof error;
  (void)process.kernel.getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

ssize_t send_file_relayed(Process& process, const Socket& s, int in, off_t* offset, std::size_t n) {
  constexpr std::size_t kAtOnce = 65536;  // what the pump takes in one step
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(std::min(n, kAtOnce));
  const iovec v{buffer.get(), std::min(n, kAtOnce)};
  const off_t start = offset != nullptr ? *offset : ::lseek(in, 0, SEEK_CUR);
  if (start < 0) return -ESPIPE;
  const ssize_t got = process.kernel.preadv(in, &v, 1, start);
  if (got <= 0) return got;
  const iovec part{buffer.get(), static_cast<std::size_t>(got)};
  const ssize_t sent = send_relayed(process, s, {&part, 1});
  if (sent <= 0) return sent;
  if (offset != nullptr) {
    *offset += sent;
  } else {
    (void)::lseek(in, start + sent, SEEK_SET);
  }
  return sent;
}

}  // namespace mtcp::intercept
