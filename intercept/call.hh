// What the socket calls share: finding the socket, deadlines, and the retry of a call that would say EAGAIN.
#pragma once

#include <atomic>

#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "stack/ip/route.hh"

namespace mtcp::intercept {

// Keeps a socket alive (not open) over a wait, in which other threads may close it.
class Hold {
 public:
  Hold(Process& process, Socket& s) : process_(process), socket_(s) { process.hold(s); }
  ~Hold() { process_.release(socket_); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  Process& process_;
  Socket& socket_;
};

// A call that waits for a listener, while it lives; nothing for other sockets. The socket is held.
class ListenerWait {
 public:
  ListenerWait(Process& process, Socket& s) : process_(process), socket_(s), listens_(s.state == Socket::State::listening) {
    if (listens_) process.begin_wait_for(s);
  }
  ~ListenerWait() {
    if (listens_) process_.end_wait_for(socket_);
  }
  ListenerWait(const ListenerWait&) = delete;
  ListenerWait& operator=(const ListenerWait&) = delete;

 private:
  Process& process_;
  Socket& socket_;
  bool listens_;
};

[[nodiscard]] inline stack::Time deadline_after(stack::Duration timeout) {
  return timeout == stack::Duration::zero() ? stack::kNever : now() + timeout;
}

// A call looks at `s`: what other calls have sent to it on the loopback wire has arrived, as in the kernel.
inline void settle(Process&, const Socket& s) {
  const bool local = s.connection != nullptr ? s.connection->path->local : s.listener != nullptr;
  if (local) [[unlikely]] s.shard->instance->settle_loopback();
}

// A call on `s` found nothing to do. True if the stack has been run and it should look again: that is so when something
// is on the loopback wire, and when it was the same the last time and nobody has run the stack since, so that a program
// that only polls by calling makes progress, and one that waits with epoll does not pay for it.
[[nodiscard]] inline bool retry_after_turn(Process&, Socket& s) {
  if (s.shard->instance == nullptr) return false;
  Instance& instance = *s.shard->instance;
  // An ACK may be what the other end waits for with the next bytes.
  const bool local = s.connection != nullptr && s.connection->path->local;
  if (local ? instance.worker().pending() : instance.worker().network().loopback_waiting()) {
    (void)instance.turn(now());
    return true;
  }
  const std::uint64_t turns = instance.turns.load(std::memory_order_relaxed);
  const bool again = s.turns_at_again == turns;
  if (again) (void)instance.turn(now());
  s.turns_at_again = instance.turns.load(std::memory_order_relaxed);
  return again;
}

// Bytes can be sent and received: by the stack's connection, or by the relay that has taken its place.
[[nodiscard]] inline bool connected(const Socket& s) {
  return s.state == Socket::State::stream || (s.state == Socket::State::relayed && s.fd >= 0);
}

// A connection that has not got its SYN-ACK yet.
[[nodiscard]] inline bool is_opening(const stack::Connection& c) {
  return c.hot.state == stack::State::syn_sent || c.hot.state == stack::State::syn_received;
}

inline constexpr Router::Verdict kWithoutDevice{Router::Owner::kernel, "the device could not be opened"};
// Of a socket with an option that only the kernel can honour.
inline constexpr Router::Verdict kKernelOnly{Router::Owner::kernel, "for an option that only the kernel can honour"};

// Puts a connection and its socket together.
void attach(Socket& s, stack::Connection& c);

// shutdown() or connect(AF_UNSPEC) of a listener: a bound socket again. 0 or -errno of the kernel's side.
int stop_listening(Process& process, Socket& s);

// The connect of an undecided socket, as connect(2) has it, with what its SYN may take along, or null. kConnectsInKernel: the
// socket is the kernel's now, which has not been asked to connect yet.
inline constexpr int kConnectsInKernel = 1;
int connect_undecided(Process& process, Guard& guard, Socket& s, const sockaddr* a, socklen_t n,
                      stack::FastOpenStart* fast);
// The same for Socket::deferred.
int connect_deferred(Process& process, Guard& guard, Socket& s, stack::FastOpenStart& fast);

// shutdown() of a socket in SYN-SENT: not connected, as before. 0.
int abandon_connect(Socket& s);

// setsockopt(2) of this socket. 0 or -errno.
int set_option(Process& process, Socket& s, int level, int name, const void* v, socklen_t n);

// The name that the kernel has given to the socket behind `s`, after bind or an automatic one. 0 or -errno.
int record_local(Process& process, Socket& s);

// Tells the kernel socket the options that it does not know of yet. 0 or the first -errno (the rest is tried,
// too).
int replay_options(Process& process, Socket& s);
// Options of a socket that another process has made, from the kernel's.
void learn_options(Process& process, Socket& s);

}  // namespace mtcp::intercept
