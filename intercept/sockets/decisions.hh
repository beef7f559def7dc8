// Where sockets went, and why: lines at level info, once for each listener and each destination, and counters for mtcp-stat.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "intercept/support/lock.hh"
#include "intercept/sockets/route.hh"

namespace mtcp::intercept {

// How many connects a shard has made.
struct Connects {
  std::uint64_t on_stack = 0, in_kernel = 0;
};

class Decisions {
 public:
  void listens(const stack::Endpoint& local, const Router::Verdict& verdict);
  void connects(Connects& count, const stack::Endpoint& remote, const Router::Verdict& verdict);

  std::uint64_t listens_on_stack = 0, listens_in_kernel = 0;  // on both: on the stack. All locks are held

 private:
  Lock lock_;  // of what is told
  std::set<std::string> told_;  // lines about destinations
};

}  // namespace mtcp::intercept
