// The process's side of mtcp: implements Engine. One per process; the shim holds the pointer. What is per process is here, the
// calls in the files named above them; what is per stack is in Shard, with its lock; what is per thread, in shards.cc. What is
// declared here is changed with the locks of all shards held and read with any one (shards.hh), unless it says otherwise.
#pragma once

#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "intercept/background/filter_file.hh"
#include "intercept/descriptors/files.hh"
#include "intercept/descriptors/pool.hh"
#include "intercept/descriptors/socket.hh"
#include "intercept/descriptors/socket_slab.hh"
#include "intercept/device/door.hh"
#include "intercept/device/early_start.hh"
#include "intercept/device/instance.hh"
#include "intercept/device/worker_number.hh"
#include "intercept/engine.hh"
#include "intercept/options.hh"
#include "intercept/relay/heritage.hh"
#include "intercept/relay/relay.hh"
#include "intercept/shards/guard.hh"
#include "intercept/sockets/decisions.hh"
#include "intercept/sockets/route.hh"
#include "intercept/support/cpus.hh"
#include "intercept/support/lock.hh"
#include "intercept/waiting/epoll.hh"
#include "stack/port/device.hh"

namespace mtcp::intercept {

class ServiceThread;
struct DoorNonces;
struct KernelMembership;

class Process final : public Engine {
 public:
  using OpenAsGuest = std::unique_ptr<stack::Device> (*)(const stack::DeviceInvitation&, std::uint64_t program, std::uint32_t cpus);
  using OpenDevice = std::unique_ptr<stack::Device> (*)(const stack::DeviceConfig&, std::string& message);

  Process(const Services& services, Options options, OpenDevice open_device, OpenAsGuest open_as_guest = nullptr,
          ReadFilter read_filter = nullptr);
  ~Process() override;

  // --- open.cc (socket, bind, listen, names), taken_up.cc, accept.cc, connect.cc, close.cc (shutdown, close, close_range)
  int socket(int domain, int type, int protocol) override;
  int bind(int fd, const sockaddr* a, socklen_t n) override;
  int listen(int fd, int backlog) override;
  int take_up(int fd) override;
  int bind_beside(int fd, const sockaddr* a, socklen_t n) override;
  void limits_changed() override;
  int take_up_listener(int fd, int backlog, bool nonblocking) override;
  int accept4(int fd, sockaddr* a, socklen_t* n, int flags) override;
  int connect(int fd, const sockaddr* a, socklen_t n) override;
  int shutdown(int fd, int how) override;
  int close(int fd) override;
  int getsockname(int fd, sockaddr* a, socklen_t* n) override;
  int getpeername(int fd, sockaddr* a, socklen_t* n) override;
  // --- sockopt.cc
  int getsockopt(int fd, int level, int name, void* v, socklen_t* n) override;
  int setsockopt(int fd, int level, int name, const void* v, socklen_t n) override;
  // --- control.cc (fcntl, ioctl), dup.cc
  int fcntl(int fd, int cmd, unsigned long arg) override;
  int ioctl(int fd, unsigned long request, void* arg) override;
  int dup(int fd) override;
  int dup3(int from, int to, int flags, bool dup2_semantics) override;
  int close_range(unsigned first, unsigned last, int flags) override;
  // --- receive.cc, send.cc, sendfile.cc, splice.cc
  ssize_t recvmsg(int fd, msghdr* m, int flags) override;
  ssize_t sendmsg(int fd, const msghdr* m, int flags) override;
  ssize_t recv(int fd, void* p, size_t n, int flags) override;
  ssize_t send(int fd, const void* p, size_t n, int flags) override;
  ssize_t sendfile(int out, int in, off_t* offset, size_t n) override;
  ssize_t splice(int in, off_t* in_offset, int out, off_t* out_offset, size_t n, unsigned flags) override;
  // --- epoll_calls.cc, poll_calls.cc
  int epoll_ctl(int ep, int op, int fd, epoll_event* e) override;
  int epoll_wait(int ep, epoll_event* e, int n, const timespec* timeout, const sigset_t* mask) override;
  int poll(pollfd* p, nfds_t n, const timespec* timeout, const sigset_t* mask) override;
  int select(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout, const sigset_t* mask) override;
  // --- rights.cc
  void pass_descriptors(const msghdr* m) override;
  // --- exec.cc
  void before_exec() override;
  void after_failed_exec() override;
  std::size_t describe_listeners(char* text, std::size_t room) override;
  Start* before_spawn(const SpawnAction* actions, std::size_t n, bool for_long) override;
  void after_spawn(Start* start, bool made) override;
  // --- life.cc
  void before_fork() override;
  void after_fork(bool child) override;
  void before_privileges() override;
  void at_exit() override;
  void dying() override;

  // --- life.cc, lock held: closes every connection and listener, and waits until the peers have what was written,
  // as long as there is progress.
  // `others_go_on`: those that other processes use are carried on until they are done (relay.hh), however long.
  void end_connections(stack::Duration at_most, bool others_go_on);
  // --- start.cc, all locks held: a stack for this shard. 0, or -errno after a clear line in the log: the device
  // can't be opened (-ENODEV, -EACCES, ...) or another process has the queue (-EBUSY). Listeners that exist
  // are put on it.
  int ensure_started(Shard& shard);
  int ensure_started() { return ensure_started(first()); }
  // The same for the guard's, or of all shards; takes all locks for it, if there is something to do.
  int ensure_started(Guard& guard) {
    if (guard.shard().instance != nullptr && !guard.all()) [[likely]] return 0;
    return start_now(guard);
  }
  // The same, and waits, with the lock given up, while another process of this program is about to share its device.
  int await_stack(Guard& guard, Shard& shard);
  // Opens an inherited device now if it will be needed (there are listeners, or will be). Errors are logged
  // and told again by ensure_started(). The lock is given up while another process has it.
  void open_device_early(Guard& guard, bool will_listen = false);
  [[noreturn]] void exit_without_device() const;  // a server without a device hears nothing
  [[nodiscard]] bool has_relatives() const { return services.has_relatives != nullptr && services.has_relatives(); }
  // What outlives this process (lasting.hh), if it has not been read yet. 0 or -EAGAIN.
  int load_secrets();
  std::optional<stack::SipKey> peer_key();  // stack::DeviceConfig::peer_key
  [[nodiscard]] Shard& first() { return shards.first(); }
  // Any of them.
  [[nodiscard]] bool started() { return any_stack([](Instance&) { return true; }); }
  // All locks held: visits the stacks that there are.
  template <typename Visit>
  void for_each_stack(Visit visit) {
    shards.for_each([&](Shard& s) {
      if (s.instance != nullptr) visit(*s.instance);
    });
  }
  template <typename Test>
  [[nodiscard]] bool any_stack(Test test) {
    bool found = false;
    for_each_stack([&](Instance& i) { found = found || test(i); });
    return found;
  }
  // See Shards::one_at_a_time.
  [[nodiscard]] bool needs_one_at_a_time() const { return relay.in_use() || !heritage.empty() || captures != nullptr; }

  // --- start.cc, all locks held: who gets copies of what all stacks receive and send (mtcp-dump); null: nobody.
  void set_captures(stack::CaptureSet* set);

  // --- follow.cc, the shard's lock held: where the stacks' addresses are the kernel's, what it says of them now. Before each
  // decision.
  void follow_kernel(Shard& shard);
  // There is no interface for port = "auto", and so no address of it: whoever wants one is told, once.
  void miss_interface(const stack::IpAddress& wanted);
  void forget_followers();  // in the child of a fork: what comes is the parent's

  // --- life.cc, lock held; it is given up for a moment. Takes back a provisional stack: what has come so far is left for the
  // next process that has the listeners.
  void retire(Guard& guard);
  // With all locks held, which stay so.
  void sleep_on_stacks(stack::Time until, std::span<const pollfd> others);

  // --- shards/affinity.cc, all locks held but where it says otherwise
  // How many stacks this process may have. Without a lock.
  [[nodiscard]] unsigned most_stacks() const;
  // `s` has begun to listen, or a set gets it, both in the calling thread: it goes to that one's stack if it is to have one of its own.
  void bring_to_thread(Guard& guard, Socket& s);
  void bring_to_thread(Guard& guard, int fd);  // the same of a descriptor, which may be another thread's; takes all locks
  bool listeners_move = false;                 // there has been one of which that could be true
  // Whether it is possible at all. With the lock of its shard.
  [[nodiscard]] bool may_come_to_thread(const Socket& s) const {
    return s.state == Socket::State::listening && s.reuse_port && !options.device.port.empty() && most_stacks() > 1;
  }

  // --- listening.cc, lock held
  // There is a new listener, and no stack so far.
  void start_soon();
  // A provisional stack for the listeners that this process alone has, if it can be had.
  void start_for_listeners();
  // Puts a listening socket on the stack (no-op before the start). -EADDRINUSE and so on.
  int start_listener(Socket& s);
  // All that belong there: what this process has made, and what it wants.
  void start_listeners();
  // Somebody here is interested in a listener that may have been inherited, or in all that a set
  // has (true if it has any).
  void want(Socket& s);
  bool want_members(EpollSet& set);
  // Who is interested has changed: tells the stack whether anybody waits for the listener.
  void watch_changed(Socket& s);
  // A call that waits for `s` begins and ends.
  void begin_wait_for(Socket& s);
  void end_wait_for(Socket& s);
  // A call has accepted from `s`, or tried: for a moment that counts as waiting.
  void attend(Socket& s);
  void stop_attending(Socket& s);
  // That moment is over for some. The service thread sees to it, while `attended` is not empty.
  void review_attention(Shard& shard);
  // Takes a listener off the stack. `others_go_on`: other processes have it, too.
  void end_listening(Socket& s, bool others_go_on);
  // Connections that other processes have left for `s`, which this one has made and ends without ever having waited: they go
  // where another process has the listener by now, or are reset when this one ends.
  [[nodiscard]] bool is_for_unclaimed(const Socket& s) const;
  void take_unclaimed(Socket& s);
  // Changes when a set may have got listeners that are not on the stack.
  std::atomic<std::uint32_t> interest_version{1};
  std::vector<Socket*> listeners;  // all that are State::listening
  void forget_listener(Socket& s);
  // The listener of this process for connections to `remote`; null: none.
  // `near`: rather one of this shard.
  [[nodiscard]] Socket* listener_for(const stack::Endpoint& remote, const Shard* near = nullptr) const;

  // --- socket_life.cc, lock held
  // The socket goes to the kernel for good: replays options and flags, moves epoll registrations, forgets it.
  // The kernel descriptor stays the same. 0 or -errno of the replay.
  int hand_to_kernel(Socket& s);
  // An undecided socket becomes another shard's. All locks held.
  void change_shard(Socket& s, Shard& shard);
  // Before a connect: an undecided socket goes where the listener is that it will find in this process, else to the calling
  // thread's. All locks are held afterwards if the connect may take more than that shard's. In sockets/connect.cc.
  void choose_shard(Guard& guard, int fd, const sockaddr* a, socklen_t n);
  // Before a descriptor goes: all locks if it takes more than its shard's own. `fd` may be something else after it.
  void widen_for_close(Guard& guard, int fd);
  // One descriptor less; the last one closes the connection or listener, as soon as no call in progress holds
  // it. Does not touch the kernel descriptor.
  void drop_descriptor(Socket& s);
  // Closes one descriptor of ours, number included: pooled or closed in the kernel. Does not linger. 0 or -errno.
  int close_now(int fd);
  void hold(Socket& s) { ++s.holds; }
  void hold(EpollSet& set) { ++set.holds; }
  void release(Socket& s);  // closes and frees it if nothing refers to it any more
  void release(EpollSet& set);

  // --- epoll_calls.cc, lock held: what close, dup and hand_to_kernel need of the sets
  void forget_target(
      Watchable& w);  // all registrations of a description that goes away; wakes who waits for it
  // Registrations become the kernel's; those in sets that came over a fork and are not used here only if
  // `inherited_too`.
  void move_to_kernel(Socket& s, bool inherited_too);
  // The opposite (take_over.cc): a relayed socket has its connection in this process's stack, or has lost it (null). `placeholder`: the
  // kernel socket that is to be behind its number, taken.
  void become_own(Guard& guard, Socket& s, stack::Connection* c, int placeholder);
  void move_from_kernel(Guard& guard, Socket& s, const KernelMembership& m);
  void sync_kernel_listening(Socket& s);  // kernel_listens has become true: the kernel's sets must know, too
  void sync_local_listener(Socket& s);    // local_fd is there: the same
  void drop_set_descriptor(EpollSet& set);  // one descriptor of an epoll set has been closed

  // --- callback.cc, lock held: threads that wait in the kernel's own epoll_wait for a set that has become
  // ours.
  void call_back(EpollSet& set, int ep);
  // Whether they still have to be called; takes the bell out of the set when not.
  bool still_calls_back(EpollSet& set, int ep);

  // --- wait.cc, start.cc, lock held: threads that sleep in the kernel
  int keep_high(
      int fd);  // moves an internal descriptor to a high number and marks it reserved; returns the number
  int internal_eventfd();  // non-blocking, close-on-exec, at a high number and reserved; -errno
  void forget_waits();     // in the child of a fork: the threads that waited are not here
  void release_worker_number();
  int bell = -1;                       // an eventfd that is always readable

  Services services;
  Kernel& kernel;
  Options options;
  Files files;    // each entry is its owner's
  Shards shards;  // the stacks
  pid_t pid = ::getpid();  // whose memory this is: not so in the child of a vfork
  Router router;
  FilterFile filter_file;
  Decisions decisions;              // has a lock of its own
  Relay relay{*this};           // connections that other processes have, too
  Heritage heritage{*this};     // and those of others that this process has
  stack::CaptureSet* captures = nullptr;  // see set_captures()
  std::atomic<std::uint64_t> cookies{0};  // how many sockets have been asked for one
  int starts = 0;                  // calls of exec and posix_spawn in progress: FD_CLOEXEC is as the application wants it
  std::uint64_t conversions = 0;   // how often a socket has become State::relayed: who waits looks again
  std::optional<stack::Secrets> lasting;  // without `key`
  DoorNonces* door_nonces = nullptr;      // read with it; null: not kept
  std::unique_ptr<stack::Device> device;
  WorkerNumber worker_number;  // held from before the device is opened until the end, if it is a numbered one
  OpenDevice open_device;
  OpenAsGuest open_as_guest;
  std::atomic<bool> told_of_routes{false};  // that they are too many
  std::string follow_error;    // why there is no follower; told once
  std::string start_error;     // why ensure_started() failed last time; told once
  bool misconfigured = false;  // why the device could not be opened: its values cannot go together ...
  bool on_kernel = false;      // the device could not be opened, and so all sockets are the kernel's (on_failure)
  bool in_use = false;         // why the device could not be opened: another program has it
  bool successor = false;      // listeners came from a program that may still have the device
  const std::uint32_t cpus = program_cpus();
  std::uint64_t program = 0;   // program_number(), or that of the program that the listeners came from
  bool told_of_exec = false;   // that a connection ends with it
  bool exiting = false;        // there will be no stack any more
  bool last_of_device = false; // and no other process that shares the device: a listener that is passed on is another program's
  Door door{*this};            // of the device that is open, for processes that were forked before
  EarlyStart early_start{*this};
  std::atomic<bool> provisional{false};  // the stack is there for listeners that nobody here has waited for so far
  void need_stack() {  // somebody has; every wait says so, and a line that is only read stays in all caches
    if (provisional.load(std::memory_order_relaxed)) provisional.store(false, std::memory_order_relaxed);
  }
  stack::Time next_attempt{};  // a start that failed because the queue is taken is not tried before this
  stack::Time asked_since{};   // another process has been asked for the device, and has not answered

 private:
  [[nodiscard]] bool has_twin(const Socket& listener) const;
  void move_listener(Socket& s, Shard& to);
  Shard* shard_of_new_set(Guard& guard, Watchable& first);
  bool bring_connection(Socket& s, Shard& to);
  void await_brought(Socket& s, const stack::FlowKey& key, std::size_t unread);
  void move_members(EpollSet& set, Shard& to);
  void tend_set(Guard& guard, EpollSet& set);
  void return_set(Guard& guard, EpollSet& set);
  void gather_in_first();
  int start_now(Guard& guard);
  void finish(Socket& s);  // closes the connection or listener and frees the socket
  void finish(EpollSet& set);
  bool open_follower(Shard& shard);
  int open_device_now();
  int lack_device(const std::string& port, const std::string& message);  // -ENETDOWN, or all is the kernel's (on_failure)
  int start_without_device();
  int share_device();
  void await_device(Guard& guard);
  int number_device(stack::DeviceConfig& config, std::string& message);
  int wait_for_slot(stack::Time now);
  void add_local_side(EpollItem& item, int ep);
  int wait_for_memory(stack::Time now);
  int set_of(int ep, int fd, Shard* shard, EpollSet*& set);
  int kernel_member(int ep, int op, int fd, epoll_event* e);
  void join_outer_sets(EpollSet& inner, int ep);
  void share_set(EpollSet& set);
  void settle_in(EpollSet& set, const Watchable& target);
  void gather_in(Guard& guard, EpollSet& set, Socket& s);
  int epoll_add(Guard& guard, EpollSet& set, int ep, Watchable& target, int fd, const epoll_event& e);
  int epoll_modify(EpollItem& item, int ep, const epoll_event& e);
  void rearm(EpollItem& item);
  void interest_changed(Watchable& target);
  int epoll_wait_loop(Guard& guard, EpollSet& set, int ep, std::span<epoll_event> out,
                      const timespec* timeout, const sigset_t* mask);
  [[nodiscard]] int descriptor_of(const EpollSet& set) const;
};

// --- guard.hh: what every call does

inline Shards& Guard::shards() const { return process().shards; }

template <typename Visit>
void Guard::visit_all(Visit visit) const {
  shards().for_each(visit);
}

inline Guard::Guard(Process& process, int fd) : shard_(&process.first()), holding_(Holding::one) {
  if (!process.shards.several()) [[likely]] {
    shard_->lock.lock();
    if (!process.shards.several()) [[likely]] return;
    shard_->lock.unlock();  // a second one has come just now
  }
  lock_descriptor(process, fd);
}

inline void Guard::lock() {
  if (all_) [[unlikely]] return lock_all();
  shard_->lock.lock();
  holding_ = Holding::one;
  if (shards().several()) [[unlikely]] lock_again();
}

inline Watchable* Guard::covered(int fd) const {
  Watchable* w = process().files.watchable(fd);
  if (all_ || !shards().several() || w == nullptr) return w;
  return process().files.owner(fd) == shard_->index ? w : nullptr;
}

}  // namespace mtcp::intercept
