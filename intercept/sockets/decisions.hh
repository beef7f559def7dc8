// Where sockets went, and why: lines at level info, once for each listener and each destination, and counters for mtcp-stat.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "intercept/support/lock.hh"
#include "intercept/sockets/route.hh"

namespace mtcp::intercept {

class Decisions {
 public:
  void listens(const stack::Endpoint& local, const Router::Verdict& verdict);
  void connects(const stack::Endpoint& remote, const Router::Verdict& verdict);

  std::uint64_t listens_on_stack = 0, listens_in_kernel = 0;  // on both: on the stack
  std::uint64_t connects_on_stack = 0, connects_in_kernel = 0;

 private:
  Lock lock_;
  std::set<std::string> told_;  // lines about destinations
};

}  // namespace mtcp::intercept
