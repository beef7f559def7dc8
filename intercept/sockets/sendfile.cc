// sendfile: the file is read straight into the packets that carry it, or they refer to it where it is mapped.
#include <errno.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <memory>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/send.hh"
#include "intercept/sockets/stream_call.hh"
#include "intercept/support/errors.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

constexpr std::size_t kMostAtOnce = 0x7ffff000;  // MAX_RW_COUNT
// What is read at a time: two bursts, some 130 KB, so that it is still in the cache when it is sent; however large a packet is.
constexpr std::size_t kPieces = 88, kPart = 131072;

class SendFile : StreamCall {
 public:
  SendFile(Process& process, Guard& guard, Socket& s, int in, off_t* offset, std::size_t n)
      : StreamCall(process, guard, s), in_(in), offset_(offset), left_(n) {}

  ssize_t run() {
    const ssize_t result = attempt_twice([this] { return attempt(); });
    if (result != -EAGAIN) return result;
    return s_.nonblocking ? give_up(-EAGAIN) : wait();
  }

 private:
  // Sends until the buffer is full (-EAGAIN), the file is at its end, or all is done.
  ssize_t attempt() {
    if (s_.state == Socket::State::relayed) [[unlikely]] return attempt_relayed();
    if (is_opening(*s_.connection)) return -EAGAIN;
    stack::Worker& worker = s_.shard->instance->worker();
    while (left_ > 0) {
      if (const auto sent = attempt_mapped(worker); !sent) {
        if (sent.error() == stack::Errc::would_block) return -EAGAIN;
        return give_up(-to_errno(sent.error()));
      } else if (*sent > 0) {
        account(*sent);
        continue;
      }
      std::array<iovec, kPieces> pieces;
      const auto lent = worker.reserve(*s_.connection, std::min(left_, kPart), pieces, now());
      if (!lent) {
        if (lent.error() == stack::Errc::would_block) return -EAGAIN;
        return give_up(-to_errno(lent.error()));
      }
      std::size_t room = 0;
      for (std::size_t i = 0; i < *lent; ++i) room += pieces[i].iov_len;
      const ssize_t got = process_.kernel.preadv(in_, pieces.data(), static_cast<int>(*lent),
                                                 offset_ != nullptr ? *offset_ : -1);
      const auto bytes = static_cast<std::size_t>(std::max<ssize_t>(got, 0));
      // Less than asked for is the end of the file: nothing follows that the last segment should wait for.
      worker.commit(*s_.connection, bytes, bytes == room && bytes < left_, now());
      if (got < 0) return give_up(got);
      if (got == 0) return result();
      account(bytes);
    }
    return result();
  }

  // Without a copy. 0: it has to be read.
  stack::Result<std::size_t> attempt_mapped(stack::Worker& worker) {
    if (offset_ == nullptr || left_ < MappedFiles::kLeast || !worker.takes_external(*s_.connection)) return std::size_t{0};
    const auto piece = s_.shard->instance->mapped_files.find(process_.kernel, in_, *offset_, left_, now());
    if (piece.memory == nullptr) return std::size_t{0};
    return worker.send_external(*s_.connection, *piece.memory, piece.offset, piece.bytes, piece.bytes < left_ && !piece.last, now());
  }

  ssize_t attempt_relayed() {
    while (left_ > 0) {
      const ssize_t sent = send_file_relayed(process_, s_, in_, offset_, left_);
      if (sent == -EAGAIN && done_ > 0 && s_.nonblocking) return result();
      if (sent < 0) return sent == -EAGAIN ? sent : give_up(sent);
      if (sent == 0) break;
      done_ += static_cast<std::size_t>(sent);
      left_ -= static_cast<std::size_t>(sent);
    }
    return result();
  }

  ssize_t wait() {
    return wait_for_room(process_, guard_, s_, [this] { return attempt(); }, [this](int error) { return give_up(error); });
  }

  void account(std::size_t bytes) {
    if (offset_ != nullptr) *offset_ += static_cast<off_t>(bytes);
    done_ += bytes;
    left_ -= bytes;
    // What the peer has acknowledged meanwhile is free for the next part, and still in the cache.
    if (left_ > 0 && bytes >= kPart / 2)
      (void)s_.shard->instance->turn(now());
    else
      s_.shard->instance->moved(bytes);
  }
  int in_;
  off_t* offset_;
  std::size_t left_;
};

enum class Source : std::uint8_t { file, pipe, none };

// What may be sent from without an offset: a socket never, a pipe or a terminal through a buffer, because
// reading it may block.
Source source_of(int in, int& error) {
  struct stat st {};
  if (::fstat(in, &st) != 0) {
    error = -EBADF;
    return Source::none;
  }
  if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) return Source::file;
  if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) return Source::pipe;
  error = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
  return Source::none;
}

// Without the lock: only what a blocking send then takes is read, so that nothing is lost.
ssize_t send_from_pipe(Process& process, int out, int in, std::size_t n, std::size_t room) {
  constexpr std::size_t kBuffer = 65536;
  const auto buffer = std::make_unique<std::byte[]>(kBuffer);
  const ssize_t got = process.kernel.read(in, buffer.get(), std::min({n, room, kBuffer}));
  if (got <= 0) return got;
  return process.send(out, buffer.get(), static_cast<std::size_t>(got), 0);
}

}  // namespace

ssize_t Process::sendfile(int out, int in, off_t* offset, std::size_t n) {
  if (offset != nullptr && *offset < 0) return -EINVAL;
  if (files.kind(in) != FdKind::kernel) return files.kind(in) == FdKind::reserved ? -EBADF : -EINVAL;
  Source source = Source::file;
  if (offset == nullptr) {
    int error = 0;
    source = source_of(in, error);
    if (source == Source::none) return error;
  }
  Guard guard(*this, out);
  Socket* s = files.socket(out);
  if (s == nullptr) return -EBADF;
  claim_if_foreign(*this, *s);
  if (const int error = start_deferred(*this, guard, *s); error != 0) return error;
  if (const int error = check_sending(*s, 0); error != 0) return error;
  if (n == 0) return 0;
  const bool relayed = s->state == Socket::State::relayed;
  if (relayed) s->nonblocking = is_nonblocking(*this, *s);
  if (source == Source::file) {
    const ssize_t sent = SendFile(*this, guard, *s, in, offset, std::min(n, kMostAtOnce)).run();
    if (Instance* instance = guard.shard().instance.get(); instance != nullptr) instance->hand_over();
    return sent;
  }

  if (relayed) {  // a full pair is found by the send
    guard.unlock();
    return send_from_pipe(*this, out, in, n, n);
  }
  const std::size_t room = is_opening(*s->connection) ? 0 : s->shard->instance->worker().writable_bytes(*s->connection);
  if (room == 0 && s->nonblocking) return -EAGAIN;
  guard.unlock();
  return send_from_pipe(*this, out, in, n, room > 0 ? room : n);
}

}  // namespace mtcp::intercept
