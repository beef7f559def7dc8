// The owner's side of connections that several processes have. While a child might still use a connection,
// this process keeps it open after its own close. When a second process does use it, it gets a relay:
// everybody's descriptor becomes one end of a kernel socket pair, so that they share one stream as the kernel
// has it, and this process pumps the bytes between the other end and the connection, which no descriptor
// belongs to any more.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "intercept/relay/relay_channel.hh"
#include "intercept/waiting/watch.hh"
#include "stack/base/intrusive_list.hh"

namespace mtcp::intercept {

struct Socket;

// A connection that belongs to no descriptor: kept for a child, or relayed.
struct Relayed : Watcher {
  Relayed() : Watcher(Kind::relay) {}
  class Relay* relay = nullptr;
  Socket* socket = nullptr;  // ours alone, in no table; has the connection
  std::uint64_t serial = 0;
  int pump = -1;             // our end of the pair; -1: nobody has used it yet
  int user = -1;             // the others' end, as long as somebody may still ask for it
  bool readable = false;     // the pump's end may have bytes
  bool wants_out = false;    // the pump's end is full; the kernel tells when it is not
  bool byte_left = true;     // one that has been dealt with is in the pump's end: see relay_pump.cc
  bool users_ending = false; // the pump's end has shown that nobody will write any more
  bool users_ended = false;  // they have shut down their sending, or are gone
  bool peer_ended = false;   // and they have been told that the peer has
  bool users_deaf = false;   // they do not receive any more: what comes is discarded
  bool scattered = false;    // nobody knows who has the users' end
  unsigned users = 0;        // who have asked for it
  stack::ListHook ready_hook;
};

// All with the locks of all shards held, except where it says otherwise.
class Relay {
 public:
  explicit Relay(Process& process) : process_(process) {}

  // Readable when serve() has something to do; -1: nothing to serve. Without the lock.
  [[nodiscard]] int watch_fd() const { return watch_.load(std::memory_order_relaxed); }
  // Bytes may move without a call of the application. Without the lock.
  [[nodiscard]] bool pumping() const { return pumps_.load(std::memory_order_relaxed) > 0; }
  void serve();
  // Moves what connections have become ready for: after the events of a turn of the stack.
  void run_ready() {
    if (!ready_.empty()) [[unlikely]]
      pump_ready();
  }
  void note_ready(Relayed& r) {
    if (!r.ready_hook.linked()) ready_.push_back(r);
  }

  // --- fork
  void before_fork();
  // In the parent, whether there is a child or the fork failed.
  void after_fork_in_parent();
  // In the child: nothing of this is its own. Returns its channel to the parent, or -1.
  int after_fork_in_child();

  // --- sockets of this process
  // There are children or connections of theirs to look after.
  [[nodiscard]] bool in_use() const { return !children_.empty() || !relayed_.empty() || !offers_.empty(); }
  // A child may still use this connection.
  [[nodiscard]] bool held(std::uint64_t serial) const;
  // The last descriptor here is closed, and a child holds the connection: it stays open.
  void keep(Socket& s);
  // A second process is about to have it: makes `s` (a stream) State::relayed. 0 or -errno.
  int relay(Socket& s) {
    const int error = relay_for_child(s);
    if (error == 0) scatter(s);
    return error;
  }
  // The users' end that is behind `s` has gone where nobody asks for it.
  void scatter(Socket& s);
  // --- posix_spawn (relay_spawn.cc)
  // A program is being started that is to have `s` (a stream). False: it can't.
  [[nodiscard]] bool offer(Socket& s);
  [[nodiscard]] bool offered(std::uint64_t serial) const;
  // The end of what offer() has begun: the program has it now, or there is none.
  void settle(std::uint64_t serial, bool made);

  // An option of a relayed connection has been set: it becomes the connection's, if it is of this process.
  void set_option(std::uint64_t serial, int level, int name, const void* v, std::size_t n);
  // A relayed connection of this process, or null.
  [[nodiscard]] const Socket* relayed_socket(std::uint64_t serial) const;
  // The process is at its end, its own descriptors are closed: returns when no other process uses its
  // connections. One that no child has begun to use within a second is closed.
  void finish();
  // Closes all of them.
  void drop_all();

 private:
  struct Child {
    int channel = -1;
    std::uint64_t born = 0;  // it has the connections with a smaller serial ...
    std::unordered_set<std::uint64_t>
        settled;  // ... but these, which it has closed or asked for, or never got
  };

  // A pair whose users' end is behind the numbers of a connection while programs are being started.
  struct Offer {
    std::uint64_t serial = 0;
    int pump = -1, user = -1;  // -1: the connection's relay has them
    int behind = -1;           // the kernel socket that belongs there
    unsigned starts = 0;       // of programs that are to have it
  };

  Offer* offer_of(std::uint64_t serial);
  void withdraw(Offer& o);
  int watch(int fd, std::uint64_t which, std::uint32_t events);
  void close_watched(int& fd);
  void add_child(int channel, std::uint64_t born, std::unordered_set<std::uint64_t> settled);
  void end_child(std::uint64_t id);
  void serve_child(std::uint64_t id);
  void answer(Child& child, const Request& request);
  int relay_for_child(Socket& s);
  int descriptor_for(const Request& request);
  int give(const Request& request);  // take_over.cc
  [[nodiscard]] bool is_used_here(std::uint64_t serial) const;
  Socket* find(const Request& request);
  Relayed& take(Socket& s);
  int make_pair(const Socket& s, int (&ends)[2]);
  void name_pump(int pump, const Socket& s);
  int open_pair(Relayed& r);
  void drop_if_unheld(Relayed& r);
  void drop(Relayed& r);

  // --- relay_pump.cc
  void pump_ready();
  void pump(Relayed& r);
  bool to_users(Relayed& r);
  bool from_users(Relayed& r);
  std::size_t take_from_users(Relayed& r, std::size_t fresh, std::span<iovec> pieces);
  bool end_of_users(Relayed& r);
  int look_at_users(Relayed& r);  // what poll says of the pump's end
  void pump_event(Relayed& r, std::uint32_t events);
  void want_out(Relayed& r, bool on);

  Process& process_;
  std::atomic<int> watch_{-1};  // an epoll set of all channels and pumps
  std::atomic<std::uint32_t> pumps_{0};
  int fork_ends_[2] = {-1, -1};                                          // during a fork
  // What `watch_` says of an event is a serial or a child's id: never used twice, where a descriptor's number is.
  std::uint64_t next_child_ = 0;
  std::unordered_map<std::uint64_t, Child> children_;                    // by id
  std::unordered_map<std::uint64_t, std::unique_ptr<Relayed>> relayed_;  // by serial
  std::vector<Offer> offers_;
  stack::IntrusiveList<Relayed, &Relayed::ready_hook> ready_;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace mtcp::intercept
