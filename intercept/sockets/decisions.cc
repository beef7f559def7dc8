#include "intercept/sockets/decisions.hh"

#include <arpa/inet.h>

#include <mutex>

#include "intercept/support/log.hh"

namespace mtcp::intercept {
namespace {

constexpr std::size_t kMostDestinations = 1024;  // lines of one process

std::string text_of(const stack::Endpoint& e) {
  char text[INET6_ADDRSTRLEN] = "";
  const bool v4 = e.address.is_v4();
  inet_ntop(v4 ? AF_INET : AF_INET6, e.address.bytes.data() + (v4 ? 12 : 0), text, sizeof text);
  const std::string port = ":" + std::to_string(e.port);
  return v4 ? text + port : "[" + std::string(text) + "]" + port;
}

const char* name_of(Router::Owner owner) {
  switch (owner) {
    case Router::Owner::kernel: return "kernel";
    case Router::Owner::stack: return "stack";
    case Router::Owner::both: return "stack and kernel";
  }
  return "";
}

}  // namespace

void Decisions::listens(const stack::Endpoint& local, const Router::Verdict& verdict) {
  ++(verdict.owner == Router::Owner::kernel ? listens_in_kernel : listens_on_stack);
  if (!log_enabled(LogLevel::info)) return;
  log(LogLevel::info, "listen %s: %s, %s", text_of(local).c_str(), name_of(verdict.owner), verdict.why);
}

void Decisions::connects(Connects& count, const stack::Endpoint& remote, const Router::Verdict& verdict) {
  ++(verdict.owner == Router::Owner::kernel ? count.in_kernel : count.on_stack);
  if (!log_enabled(LogLevel::info)) return;
  const std::lock_guard guard(lock_);
  if (told_.size() > kMostDestinations) return;
  const std::string line = "connect " + text_of(remote) + ": " + name_of(verdict.owner) + ", " + verdict.why;
  if (!told_.insert(line).second) return;
  if (told_.size() > kMostDestinations)
    log(LogLevel::info, "more than %zu destinations: where the others go is not said", kMostDestinations);
  else
    log(LogLevel::info, "%s", line.c_str());
}

}  // namespace mtcp::intercept
