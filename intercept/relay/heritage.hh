// The child's side: connections that this process has from those it was forked from. They are State::foreign
// until they are used; then their owner is asked for a descriptor. Nothing here is done for a child that
// never uses them.
#pragma once

#include <cstdint>
#include <vector>

#include "intercept/relay/relay_channel.hh"

namespace mtcp::intercept {

class Guard;
struct Socket;
struct EpollSet;

// All with the locks of all shards held.
class Heritage {
 public:
  explicit Heritage(Process& process) : process_(process) {}

  [[nodiscard]] bool empty() const { return channels_.empty(); }

  // --- fork
  void before_fork();
  void after_fork_in_parent();
  // `to_parent`: the channel to the parent itself (-1: none). Returns what Socket::channel is of its
  // connections.
  std::int16_t after_fork_in_child(int to_parent);

  // A foreign socket is about to be used: State::relayed afterwards, or dead. 0 or -errno.
  int claim(Socket& s);
  // An option of a socket in State::relayed has been set: its owner is to do the same.
  void tell_option(const Socket& s, int level, int name, const void* v, std::size_t n);
  // A socket in State::relayed has been read so often that it may be worth a stack in this process (take_over.cc). Takes all locks
  // if it has to; `s` may be closed afterwards.
  void take_over(Guard& guard, Socket& s);
  // The last descriptor of a foreign socket has been closed. The owner is told by tell_closed(), at the
  // latest.
  void closed(const Socket& s);
  void tell_closed();

 private:
  [[nodiscard]] bool may_take_over(const Socket& s) const;
  int try_to_take_over(Guard& guard, Socket& s);
  int ask(int channel, const Request& request, int& passed);

  Process& process_;
  std::vector<int> channels_;         // to the owners; -1: gone
  std::vector<int> fork_ends_;        // during a fork, for each channel: the owner's end and the child's
  std::vector<Request> closed_;       // not told yet
  std::int16_t closed_channel_ = -1;  // of all in closed_
};

}  // namespace mtcp::intercept
