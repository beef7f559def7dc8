// An open file description that is a TCP socket of ours. Descriptors (one, or several after dup) refer to it;
// behind each there is a kernel socket of the same number. All under its shard's lock.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "intercept/sockets/timestamping.hh"
#include "intercept/sockets/zerocopy.hh"
#include "intercept/sockopt/sockopt_kinds.hh"
#include "intercept/waiting/watch.hh"
#include "stack/worker.hh"

namespace mtcp::intercept {

struct Socket : Watchable {
  enum class State : std::uint8_t {
    undecided,  // neither listen nor connect yet
    listening,  // `listener` is null until this process has a stack
    stream,     // connecting, connected or over: `connection` is there
    foreign,    // a connection that belongs to the process we were forked from, and not used here so far
    relayed,    // a connection that several processes have: the descriptor is a kernel socket (relayed.hh)
    dead,       // the connection is gone (failed start, process forked away): calls fail with `error`
  };
  Socket() : Watchable(Type::socket) {}

  State state = State::undecided;
  bool nonblocking = false;  // O_NONBLOCK
  bool async = false;        // O_ASYNC as last set (no SIGIO is sent)
  bool v6 = false;           // AF_INET6
  bool v6_only = false;
  bool reuse_port = false;
  bool bound = false;           // bind() has been called; `local` is what the kernel gave
  bool kernel_dirty = false;    // the kernel socket has been bound or changed: do not put it back in the pool
  bool shared = false;          // a listener that was inherited over fork: the parent has it, too
  bool forked = false;          // there was a fork since: a child may have it, too
  bool wanted = false;          // shared: somebody here has shown interest in it (listening.cc)
  bool watched = false;         // `listener` is there and somebody waits for its connections
  bool attention = false;       // somebody did until a moment ago: in Shard::attended until `attention_until`
  bool kernel_listens = false;  // wildcard: the kernel socket listens too
  bool marked = false;          // a listener whose kernel socket has a mark (mark_listener)
  bool kernel_only = false;     // an option was set that only the kernel can honour (SO_BINDTODEVICE, ...)
  bool quickack_set = false;    // TCP_QUICKACK has been set: before that it reads as 1
  bool inq = false;             // TCP_INQ: recvmsg tells how much more there is
  std::uint8_t accepts = 0;     // counts accepts of a listener that also listens in the kernel: see accept.cc
  bool fast_open_connect = false;  // TCP_FASTOPEN_CONNECT
  bool deferred = false;        // undecided, and connect() has said 0 all the same: the SYN waits for the first data
  bool connecting = false;      // connect() has returned EINPROGRESS and its result has not been told yet
  bool write_shut = false, read_shut = false;
  std::uint32_t descriptors = 0;  // that refer to it
  std::uint32_t callers = 0;      // calls in progress that wait for a listener
  stack::Time attention_until{};
  std::uint32_t holds = 0;        // calls in progress that will touch it again after a wait
  int fd = -1;  // the first descriptor: whose kernel socket is the one that binds and listens
  int local_fd = -1;          // of a listener: where other processes of this program connect (local_listener.hh)
  std::int16_t channel = -1;  // of a foreign connection: to its owner (heritage.hh)
  bool scattered = false;     // relayed: others may have the users' end by now
  std::uint32_t relayed_reads = 0, take_over_at = 64;  // relayed: how often it has been read, and when Heritage::take_over() is next
  std::uint64_t serial = 0;   // of a connection: never used twice, growing
  stack::Endpoint local;
  stack::Endpoint remote;
  stack::Listener* listener = nullptr;
  stack::Connection* connection = nullptr;
  stack::Errc error = stack::Errc::ok;  // pending error of a socket that has no connection
  stack::SocketOptions options;
  stack::Worker::ListenOptions listen_options;
  stack::Duration receive_timeout{}, send_timeout{};  // SO_RCVTIMEO, SO_SNDTIMEO; 0: none

  bool zerocopy = false;                        // SO_ZEROCOPY
  std::uint32_t zerocopy_sends = 0;             // with MSG_ZEROCOPY
  std::vector<ZerocopyCompletion> completions;  // that recvmsg(MSG_ERRQUEUE) has not taken
  std::unique_ptr<Timestamping> timestamping;   // null: never asked for
  std::shared_ptr<const KeptOptions> kept;  // options that the stack does not look at; null: none has been set
  std::uint64_t cookie = 0;                 // SO_COOKIE, once somebody has asked

  // Rows of the option table (sockopt_table.hh) that have been set and that the kernel socket does not know of yet:
  // replayed before bind, before listen and when the kernel takes the socket over.
  std::uint64_t unreplayed = 0;
  // Instance::turns when a call last answered EAGAIN: a second one without a turn in between is a program that polls
  // by calling, so the call itself runs the stack.
  std::uint64_t turns_at_again = 0;
};

// What poll(2) would say now: EPOLL* bits (they equal the POLL* ones), without regard to what anybody asked
// for.
[[nodiscard]] std::uint32_t poll_events(const Socket& s);
// The same without the error queue, for who waits to send or to receive.
[[nodiscard]] std::uint32_t stream_events(const Socket& s);

}  // namespace mtcp::intercept
