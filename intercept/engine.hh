// The border between the two libraries: the thin shim (preload/) calls an Engine for the descriptors that are
// the engine's, and gives it the Services. Both sides are built together and check kEngineAbi when they meet.
//
// Convention of every call: the system call's result, or -errno. errno itself is only touched in preload/.
// Thread-safe; signal-safe only through the deferral that preload does (a handler never runs inside a call).
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "intercept/kernel.hh"

namespace mtcp::intercept {

inline constexpr std::uint32_t kEngineAbi = 6;

// Whose a descriptor is. One byte per descriptor, in the shim; read relaxed on every call, written by the
// engine.
enum class FdKind : std::uint8_t {
  kernel = 0,    // not ours: straight to libc
  socket = 1,    // a TCP socket of ours: undecided, listening, connected
  epoll = 2,     // an epoll set that has (had) a socket of ours in it
  reserved = 3,  // internal (pool, device, eventfd): close, close_range and dup2 of the application spare it
};

// The shim's table. `size` entries; a descriptor outside is the kernel's.
struct FdTable {
  std::atomic<std::uint8_t>* kinds = nullptr;
  // How many threads wait in the kernel's own epoll_wait on the descriptor. Null: nobody does. Such a thread
  // counts itself, looks at the kind, and waits; who makes the set ours writes the kind (publish()) and looks
  // at the count. So one of the two sees the other. Threads that wait are called back by an event with
  // callback_mark() as its data.
  std::atomic<std::uint16_t>* kernel_waits = nullptr;
  int size = 0;
  [[nodiscard]] FdKind kind(int fd) const {
    if (static_cast<unsigned>(fd) >= static_cast<unsigned>(size)) return FdKind::kernel;
    return static_cast<FdKind>(kinds[fd].load(std::memory_order_relaxed));
  }
  void set(int fd, FdKind k) { kinds[fd].store(static_cast<std::uint8_t>(k), std::memory_order_relaxed); }
  void publish(int fd, FdKind k) { kinds[fd].store(static_cast<std::uint8_t>(k), std::memory_order_seq_cst); }
  [[nodiscard]] bool waited_for_in_kernel(int fd) const {
    return kernel_waits != nullptr && kernel_waits[fd].load(std::memory_order_seq_cst) != 0;
  }
  // What no event of the application can have as its data.
  [[nodiscard]] const void* callback_mark() const { return this; }
};

// What the shim gives the engine. Lives as long as the process.
struct Services {
  Kernel* kernel = nullptr;
  FdTable* fds = nullptr;
  // A counter of signal handlers of the application that have run (or are pending because they arrived inside
  // a call) on the calling thread: a waiting call returns -EINTR when it changes. Never null.
  const volatile std::uint32_t* (*signal_count)() = nullptr;
  // True if the last of those handlers was installed with SA_RESTART: calls that restart (see signal(7)) then
  // go on.
  bool (*last_signal_restarts)() = nullptr;
  // Called around a sleep in the kernel in which handlers may run at once, as they would in the kernel's own
  // wait. begin_sleep() runs those that are pending. Look at signal_count() after it: a handler that comes
  // later than that ends the sleep, however early, if the sleep is Kernel::epoll_pwait2 or Kernel::ppoll
  // without a mask (which then give -EINTR).
  void (*begin_sleep)() = nullptr;
  void (*end_sleep)() = nullptr;
  // The calling thread is the engine's own (the service thread): whatever it calls by a libc name is libc's. It
  // should have its signals blocked.
  void (*internal_thread)() = nullptr;
  // Where lines for the operator go that have no file: the standard error that the program was started with. -1: that
  // is gone, and descriptor 2 is something else. To be asked for each line.
  int (*notice_descriptor)() = nullptr;
  // Whether there may be other processes that fork has made of this program, be it this one's parent or child.
  bool (*has_relatives)() = nullptr;
};

// A file action of posix_spawn(3), as far as it matters to descriptors.
struct SpawnAction {
  enum class Kind : std::uint8_t {
    dup2,        // `fd` becomes `to`, too
    close,       // `fd` is closed, or something else is opened in its place
    close_from,  // and all that are higher
  };
  Kind kind = Kind::close;
  int fd = -1;
  int to = -1;
};

struct Start;  // a program that is being started; the engine's

class Engine {
 public:
  virtual ~Engine() = default;

  // --- life of a socket. socket(): -ENOTSUP means "not for the stack": the shim asks the kernel.
  virtual int socket(int domain, int type, int protocol) = 0;
  virtual int bind(int fd, const sockaddr* a, socklen_t n) = 0;
  virtual int listen(int fd, int backlog) = 0;
  virtual int accept4(int fd, sockaddr* a, socklen_t* n, int flags) = 0;
  virtual int connect(int fd, const sockaddr* a, socklen_t n) = 0;
  virtual int shutdown(int fd, int how) = 0;
  virtual int close(int fd) = 0;  // of a socket or epoll set of ours
  virtual int getsockname(int fd, sockaddr* a, socklen_t* n) = 0;
  virtual int getpeername(int fd, sockaddr* a, socklen_t* n) = 0;
  virtual int getsockopt(int fd, int level, int name, void* v, socklen_t* n) = 0;
  virtual int setsockopt(int fd, int level, int name, const void* v, socklen_t n) = 0;
  virtual int fcntl(int fd, int cmd, unsigned long arg) = 0;
  virtual int ioctl(int fd, unsigned long request, void* arg) = 0;
  virtual int dup(int fd) = 0;
  // `from`, `to` or both are ours (`to` is closed first, exactly as dup2 does).
  virtual int dup3(int from, int to, int flags, bool dup2_semantics) = 0;
  // close_range and closefrom: the engine closes its own in the range and the kernel the rest, sparing
  // internal ones.
  virtual int close_range(unsigned first, unsigned last, int flags) = 0;

  // --- bytes. `flags` of recv/send; plain read and write come with flags 0.
  virtual ssize_t recvmsg(int fd, msghdr* m, int flags) = 0;  // all of read, readv, recv, recvfrom, recvmsg
  virtual ssize_t sendmsg(int fd, const msghdr* m,
                          int flags) = 0;  // write, writev, send, sendto, sendmsg. EPIPE: the shim raises
                                           // SIGPIPE unless MSG_NOSIGNAL
  virtual ssize_t recv(int fd, void* p, size_t n, int flags) = 0;  // the short way of the commonest cases
  virtual ssize_t send(int fd, const void* p, size_t n, int flags) = 0;
  virtual ssize_t sendfile(int out, int in, off_t* offset, size_t n) = 0;  // `out` is ours
  // `in`, `out` or both are ours.
  virtual ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t n, unsigned flags) = 0;

  // A message of the application over a kernel socket carries control data: connections of ours that it passes
  // to another process (SCM_RIGHTS) become descriptors that are of use there.
  virtual void pass_descriptors(const msghdr* m) = 0;

  // --- waiting
  virtual int epoll_ctl(int ep, int op, int fd, epoll_event* e) = 0;  // `ep` or `fd` is ours
  // `timeout` null: for ever. mask null: unchanged.
  virtual int epoll_wait(int ep, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) = 0;
  virtual int poll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) = 0;  // some are ours
  // As pselect6: null sets are allowed; on return they hold the result.
  virtual int select(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout,
                     const sigset_t* mask) = 0;

  // --- life of the process. The shim calls these around the real thing.
  virtual void before_fork() = 0;  // opens inherited devices if there are listeners; takes the locks
  virtual void after_fork(bool child) = 0;
  virtual void
  before_exec() = 0;  // sets FD_CLOEXEC on what must not leak, clears it where the application wants it open
  virtual void after_failed_exec() = 0;
  // libc is about to make a child, of which nothing is seen, and to start a program in it. after_spawn() follows, with
  // what before_spawn() has returned and whether there is a child now. `for_long`: the call goes on while the program runs.
  virtual Start* before_spawn(const SpawnAction* actions, std::size_t n, bool for_long) = 0;
  virtual void after_spawn(Start* start, bool made) = 0;
  // The listeners of the stack that a program gets by exec, as text: "descriptor:backlog," each, with a "b" before
  // the comma if it blocks (the kernel's flag does not say so). Its length.
  virtual std::size_t describe_listeners(char* text, std::size_t room) = 0;
  // Such a listener in that program: a descriptor of the kernel becomes ours. 0, or -errno if it is none.
  // take_up(): a bound or fresh one.
  virtual int take_up(int fd) = 0;
  // A socket of the kernel's for datagrams gets an address of the stack, where nothing will reach it. 0 or -errno.
  virtual int bind_beside(int fd, const sockaddr* a, socklen_t n) = 0;
  // RLIMIT_NOFILE is another one.
  virtual void limits_changed() = 0;
  virtual int take_up_listener(int fd, int backlog, bool nonblocking) = 0;
  virtual void before_privileges() = 0;  // setuid and kin are about to happen
  // exit and _exit: sends what is queued (FIN, RST as the kernel would). After the application's atexit
  // functions and after all static destructors, which may still use sockets: so the engine has none of its
  // own.
  virtual void at_exit() = 0;
  // A signal is about to kill the process: tells the peers, as the kernel would, in a quarter of a second at
  // most. From a signal handler of a thread that is outside the engine or sleeps in it; async-signal-safe.
  virtual void dying() = 0;
};

// Why the engine cannot start. The shim prints "mtcp: <message>" and, if there is a status, ends the process
// with it: 78 (EX_CONFIG) for an error in the configuration, with file and line in the message. Else
// everything goes to the kernel.
struct EngineFailure {
  const char* message = nullptr;  // static storage
  int exit_status = 0;
};
inline constexpr int kExitConfiguration = 78;

// The engine's one exported symbol. Null and `failure` filled if it cannot start.
using EngineEntry = Engine* (*)(std::uint32_t abi, const Services* services, EngineFailure* failure);
inline constexpr const char* kEngineEntryName = "mtcp_engine_entry";
// Looked for in the directory of the shim.
inline constexpr const char* kEngineFileName = "libmtcp_engine.so";

}  // namespace mtcp::intercept
