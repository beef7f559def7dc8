// splice between a socket of ours and a pipe, in the order of do_splice() and tcp_splice_read(). No byte is taken from either side before the
// other has it: a pipe's go straight into the packets that carry them, a socket's into pages that the pipe then has.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/send.hh"
#include "intercept/support/errors.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

constexpr unsigned kAllFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;
constexpr std::size_t kPieces = 44;  // packets that are filled at once: some 64 KB, what a pipe holds

bool is_pipe(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

// Fresh pages, which stay the pipe's when they are unmapped here.
class Pages {
 public:
  explicit Pages(std::size_t n) : size_(n) {
    memory_ = ::mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  ~Pages() {
    if (there()) ::munmap(memory_, size_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  [[nodiscard]] bool there() const { return memory_ != MAP_FAILED; }
  [[nodiscard]] void* memory() const { return memory_; }

 private:
  void* memory_;
  std::size_t size_;
};

class Splice {
 public:
  Splice(Process& process, Guard& guard, Socket& s, int pipe, std::size_t n, unsigned flags)
      : process_(process), guard_(guard), s_(s), pipe_(pipe), left_(n), flags_(flags) {
    const int status = process.kernel.fcntl(pipe, F_GETFL, 0);
    pipe_waits_ = (flags & SPLICE_F_NONBLOCK) == 0 && (status & O_NONBLOCK) == 0;
  }
  virtual ~Splice() = default;
  Splice(const Splice&) = delete;
  Splice& operator=(const Splice&) = delete;

  ssize_t run() {
    const Hold hold_it(process_, s_);
    settle(process_, s_);
    bool turned = false;
    for (;;) {
      // Meanwhile another thread may have closed it, or another process have begun to use it: then the caller tries again.
      if (s_.state == Socket::State::relayed) return give_up(-EINTR);
      if (s_.state != Socket::State::stream) return give_up(-EPIPE);
      const Outcome outcome = attempt();
      if (outcome.waits_for == 0) return outcome.result;
      if (done_ > 0 && !goes_on(outcome)) return static_cast<ssize_t>(done_);
      if (outcome.of_pipe) {
        if (!pipe_waits_) return give_up(-EAGAIN);
        if (const int error = wait_for_pipe(static_cast<short>(outcome.waits_for)); error != 0) return give_up(error);
        continue;
      }
      if (!std::exchange(turned, true) && retry_after_turn(process_, s_)) continue;
      if (s_.nonblocking) return give_up(-EAGAIN);
      const stack::Time deadline = deadline_after(timeout());
      const int error = wait_for(process_, guard_, s_, outcome.waits_for, deadline, deadline == stack::kNever);
      if (error != 0) return give_up(error);
    }
  }

 protected:
  struct Outcome {
    ssize_t result = 0;
    std::uint32_t waits_for = 0;  // EPOLL* or POLL*, which are the same; 0: the call is over
    bool of_pipe = false;
  };
  virtual Outcome attempt() = 0;
  // Whether a call that has moved something waits for more.
  [[nodiscard]] virtual bool goes_on(const Outcome& outcome) const = 0;
  [[nodiscard]] virtual stack::Duration timeout() const = 0;

  void moved(std::size_t bytes) {
    done_ += bytes;
    left_ -= bytes;
    s_.shard->instance->moved(bytes);
  }
  [[nodiscard]] ssize_t give_up(ssize_t error) const { return done_ > 0 ? static_cast<ssize_t>(done_) : error; }
  [[nodiscard]] short poll_pipe(short events) const {
    pollfd p{pipe_, events, 0};
    const timespec none{};
    return process_.kernel.ppoll(&p, 1, &none, nullptr) > 0 ? p.revents : short{0};
  }

  Process& process_;
  Guard& guard_;
  Socket& s_;
  int pipe_;
  std::size_t left_;
  std::size_t done_ = 0;
  unsigned flags_;

 private:
  int wait_for_pipe(short events) {
    WaitLoop wait(process_, guard_, stack::kNever, nullptr);
    wait.set_restart(true);
    for (;;) {
      wait.turn();
      if (poll_pipe(events) != 0) return 0;
      pollfd p{pipe_, events, 0};
      if (const int error = wait.idle({&p, 1}, [](Sleeper&) {}); error != 0) return error;
    }
  }

  bool pipe_waits_;
};

class FromPipe final : public Splice {
 public:
  using Splice::Splice;

 private:
  Outcome attempt() override {
    stack::Worker& worker = s_.shard->instance->worker();
    while (left_ > 0) {
      int there = 0;
      if (const int error = process_.kernel.ioctl(pipe_, FIONREAD, &there); error != 0) return {give_up(error)};
      if (there == 0) {
        const short state = poll_pipe(POLLIN);
        if ((state & POLLIN) == 0) {
          const bool writers = (state & POLLHUP) == 0;
          return done_ > 0 || !writers ? Outcome{static_cast<ssize_t>(done_)} : Outcome{0, POLLIN, true};
        }
        there = PIPE_BUF;  // it has come just now, and its writer may be gone: this is not the end yet
      }
      if (const int error = check_sending(s_, 0); error != 0) return {give_up(error)};
      if (is_opening(*s_.connection)) return {0, EPOLLOUT};
      const std::size_t wanted = std::min(left_, static_cast<std::size_t>(there));
      std::array<iovec, kPieces> pieces;
      const auto lent = worker.reserve(*s_.connection, wanted, pieces, now());
      if (!lent && lent.error() == stack::Errc::would_block) return {0, EPOLLOUT};
      if (!lent) return {give_up(-to_errno(lent.error()))};
      std::size_t room = 0;
      for (std::size_t i = 0; i < *lent; ++i) room += pieces[i].iov_len;
      const ssize_t got = take({pieces.data(), *lent});
      const auto bytes = static_cast<std::size_t>(std::max<ssize_t>(got, 0));
      const bool more = (flags_ & SPLICE_F_MORE) != 0 || (bytes == room && room < wanted);
      worker.commit(*s_.connection, bytes, more, now());
      if (got == -EAGAIN) return {0, POLLIN, true};
      if (got <= 0) return {give_up(got)};
      moved(bytes);
    }
    return {static_cast<ssize_t>(done_)};
  }
  // Never waits, whoever else reads from the pipe: the lock is held. vmsplice(2) reads only from an end that can't write.
  ssize_t take(std::span<const iovec> into) {
    if ((process_.kernel.fcntl(pipe_, F_GETFL, 0) & O_ACCMODE) == O_RDONLY)
      return process_.kernel.vmsplice(pipe_, into.data(), into.size(), SPLICE_F_NONBLOCK);
    return process_.kernel.preadv(pipe_, into.data(), static_cast<int>(into.size()), -1);
  }
  [[nodiscard]] bool goes_on(const Outcome& outcome) const override { return !outcome.of_pipe && !s_.nonblocking; }
  [[nodiscard]] stack::Duration timeout() const override { return s_.send_timeout; }
};

class ToPipe final : public Splice {
 public:
  using Splice::Splice;

 private:
  Outcome attempt() override {
    if (is_opening(*s_.connection)) return {0, EPOLLIN | EPOLLRDHUP};
    stack::Worker& worker = s_.shard->instance->worker();
    while (left_ > 0) {
      // Without readers, the pipe is the error, whatever the socket has.
      if (done_ == 0 && (poll_pipe(POLLOUT) & POLLERR) != 0) return {broken_pipe()};
      const std::size_t there = worker.readable_bytes(*s_.connection);
      if (there == 0) return nothing_there(worker);
      const Pages pages(std::min({left_, there, kMostAtOnce}));
      if (!pages.there()) return {give_up(-ENOMEM)};
      const iovec v{pages.memory(), std::min({left_, there, kMostAtOnce})};
      const auto got = worker.receive(*s_.connection, {&v, 1}, {.peek = true}, now());
      if (!got) return {give_up(-to_errno(got.error()))};
      const iovec filled{v.iov_base, *got};
      const ssize_t taken = process_.kernel.vmsplice(pipe_, &filled, 1, SPLICE_F_NONBLOCK);
      if (taken == -EAGAIN) return {0, POLLOUT, true};
      if (taken <= 0) return {give_up(taken)};
      const iovec consumed{nullptr, static_cast<std::size_t>(taken)};
      (void)worker.receive(*s_.connection, {&consumed, 1}, {.discard = true}, now());
      moved(static_cast<std::size_t>(taken));
    }
    return {static_cast<ssize_t>(done_)};
  }

  Outcome nothing_there(stack::Worker& worker) {
    if (done_ > 0) return {static_cast<ssize_t>(done_)};
    char one = 0;
    const iovec v{&one, 1};
    const auto end = worker.receive(*s_.connection, {&v, 1}, {.peek = true}, now());
    if (end) return {0};
    if (end.error() == stack::Errc::would_block) return {0, EPOLLIN | EPOLLRDHUP};
    return {-to_errno(end.error())};
  }

  // The kernel raises SIGPIPE, too.
  ssize_t broken_pipe() {
    const iovec nothing{const_cast<char*>(""), 1};
    return process_.kernel.vmsplice(pipe_, &nothing, 1, SPLICE_F_NONBLOCK);
  }

  [[nodiscard]] bool goes_on(const Outcome&) const override { return false; }
  [[nodiscard]] stack::Duration timeout() const override { return s_.receive_timeout; }

  static constexpr std::size_t kMostAtOnce = 65536;
};

// What the socket must be to be read from or written to.
int check_state(Socket& s, bool reads) {
  if (!reads) return check_sending(s, 0);
  if (connected(s)) return 0;
  if (s.error != stack::Errc::ok) return -to_errno(std::exchange(s.error, stack::Errc::ok));
  return -ENOTCONN;
}

}  // namespace

ssize_t Process::splice(int in, off_t* in_offset, int out, off_t* out_offset, std::size_t n, unsigned flags) {
  if (n == 0) return 0;
  if ((flags & ~kAllFlags) != 0) return -EINVAL;
  const bool reads = files.kind(in) == FdKind::socket;
  const int fd = reads ? in : out, pipe = reads ? out : in;
  if (files.kind(pipe) == FdKind::reserved) return -EBADF;
  if (kernel.fcntl(pipe, F_GETFD, 0) < 0) return -EBADF;
  if (files.kind(pipe) != FdKind::kernel || !is_pipe(pipe)) return -EINVAL;
  const int mode = kernel.fcntl(pipe, F_GETFL, 0) & O_ACCMODE;
  if (mode == (reads ? O_RDONLY : O_WRONLY)) return -EBADF;
  if ((reads ? out_offset : in_offset) != nullptr) return -ESPIPE;
  if ((reads ? in_offset : out_offset) != nullptr) return -EINVAL;
  Guard guard(*this, fd);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  claim_if_foreign(*this, *s);
  if (const int error = start_deferred(*this, guard, *s); error != 0) return error;
  if (const int error = check_state(*s, reads); error != 0) return error;
  if (s->state == Socket::State::relayed) {
    guard.unlock();
    return kernel.splice(in, nullptr, out, nullptr, n, flags);
  }
  const std::size_t most = std::min<std::size_t>(n, INT_MAX);
  const ssize_t result = reads ? ToPipe(*this, guard, *s, pipe, most, flags).run() : FromPipe(*this, guard, *s, pipe, most, flags).run();
  if (Instance* instance = guard.shard().instance.get(); instance != nullptr) instance->hand_over();
  return result;
}

}  // namespace mtcp::intercept
