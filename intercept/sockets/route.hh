// Whose a socket is: decided at listen and connect, by the rules of the configuration and then by its
// addresses.
#pragma once

#include "intercept/lifetime/program.hh"
#include "intercept/options.hh"

namespace mtcp::stack {
class KernelView;
}

namespace mtcp::intercept {

class Router {
 public:
  Router(const Options& options, Program program);
  // `kernel`, everywhere: what it says of the interface whose addresses are the stack's (from_kernel); null: nothing, so far.
  using View = const stack::KernelView*;

  enum class Owner : std::uint8_t { kernel, stack, both };  // both: a listener on the wildcard address or on loopback
  // listen on `local` (any_*() for a wildcard). Without a rule: stack for an address of [interface] (or of
  // loopback when that is the stack's), both for a wildcard, kernel else.
  [[nodiscard]] Owner listen(const stack::Endpoint& local, View kernel = nullptr) const { return judge_listen(local, kernel).owner; }
  // connect to `remote` from `local` (any_*() if not bound). Without a rule: stack if the remote address is
  // on-link or reached by a gateway of [interface] and is not loopback, or is an address of our own. Where the addresses are
  // the kernel's: if its route leads through the interface; this host's own addresses are reached through the kernel.
  [[nodiscard]] Owner connect(const stack::Endpoint& local, const stack::Endpoint& remote, View kernel = nullptr) const {
    return judge_connect(local, remote, kernel).owner;
  }
  // The same with the reason, for the log.
  struct Verdict {
    Owner owner;
    const char* why;
  };
  [[nodiscard]] Verdict judge_listen(const stack::Endpoint& local, View kernel) const;
  [[nodiscard]] Verdict judge_connect(const stack::Endpoint& local, const stack::Endpoint& remote, View kernel) const;
  // False if no rule and no address could ever send a socket of this program to the stack: then it need not
  // be ours at all.
  [[nodiscard]] bool may_use_stack() const;
  // True if a rule that names this program lets it listen on the stack: then it will.
  [[nodiscard]] bool names_as_listener() const;
  // An address of [interface], or of loopback when that is the stack's.
  [[nodiscard]] bool owns(const stack::IpAddress& a, View kernel) const;
  [[nodiscard]] const Program& program() const { return program_; }

 private:
  [[nodiscard]] const Rule* match(Rule::Role role, const stack::Endpoint& e) const;
  [[nodiscard]] bool program_matches(const Rule& rule) const;
  const Options& options_;
  Program program_;
};

}  // namespace mtcp::intercept
