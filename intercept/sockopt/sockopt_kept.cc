#include "intercept/sockopt/sockopt_kept.hh"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "intercept/sockets/freebind.hh"
#include "intercept/sockopt/sockopt_kinds.hh"
#include "intercept/sockopt/sockopt_value.hh"

namespace mtcp::intercept {
namespace {

// A kernel socket to ask about options: the one behind the descriptor, or, where that is no TCP socket or goes back to the
// pool as it is, another one, which is closed afterwards.
class KernelSide {
 public:
  KernelSide(Process& process, const Socket& s, bool changes) : process_(process), fd_(s.fd) {
    const bool its_own = s.state == Socket::State::undecided || s.state == Socket::State::listening;
    if (its_own || (!changes && s.state != Socket::State::relayed && s.fd >= 0)) return;
    fd_ = process.kernel.socket(s.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    extra_ = true;
  }
  ~KernelSide() {
    if (extra_ && fd_ >= 0) process_.kernel.close(fd_);
  }
  KernelSide(const KernelSide&) = delete;
  KernelSide& operator=(const KernelSide&) = delete;

  [[nodiscard]] int fd() const { return fd_; }  // or -errno

 private:
  Process& process_;
  int fd_;
  bool extra_ = false;
};

// Of both levels, if the socket has both.
bool is_freebind(const Socket& s, int level, int name) {
  return (level == IPPROTO_IP && name == IP_FREEBIND) || (s.v6 && level == IPPROTO_IPV6 && name == IPV6_FREEBIND);
}

bool is(const Socket& s, const KeptOption& o, int level, int name) {
  return (o.level == level && o.name == name) || (is_freebind(s, o.level, o.name) && is_freebind(s, level, name));
}

const KeptOption* find(const Socket& s, int level, int name) {
  if (s.kept == nullptr) return nullptr;
  const auto found = std::ranges::find_if(*s.kept, [&](const KeptOption& o) { return is(s, o, level, name); });
  return found != s.kept->end() ? &*found : nullptr;
}

// What accept passes on, and getsockopt says: the value as the kernel has it.
void keep(Process& process, Socket& s, int kernel_fd, int level, int name) {
  KeptOption option{.level = level, .name = name, .size = sizeof option.value, .value = {}};
  if (process.kernel.getsockopt(kernel_fd, level, name, option.value.data(), &option.size) != 0) return;
  auto all = s.kept != nullptr ? std::make_shared<KeptOptions>(*s.kept) : std::make_shared<KeptOptions>();
  std::erase_if(*all, [&](const KeptOption& o) { return is(s, o, level, name); });
  all->push_back(option);
  s.kept = std::move(all);
}

int set_in_kernel(Process& process, Socket& s, int level, int name, const void* v, socklen_t n, bool kept) {
  const KernelSide side(process, s, true);
  if (side.fd() < 0) return side.fd();
  if (side.fd() == s.fd) s.kernel_dirty = true;
  const int error = process.kernel.setsockopt(side.fd(), level, name, v, n);
  if (error == 0 && kept) keep(process, s, side.fd(), level, name);
  if (error == 0 && s.marked && is_freebind(s, level, name)) set_freebind(process.kernel, s.fd, s.v6, true);
  return error;
}

// The kernel's rules may ask for a mark, and where the stack follows them it knows of none.
bool is_for_kernels_rules(const Process& process, int level, int name, const void* v, socklen_t n) {
  int mark = 0;
  if (level != SOL_SOCKET || name != SO_MARK || n < sizeof mark || !process.options.stack.interface.from_kernel) return false;
  std::memcpy(&mark, v, sizeof mark);
  return mark != 0;
}

}  // namespace

bool has_kept_option(const Socket& s, int level, int name) { return find(s, level, name) != nullptr; }

std::shared_ptr<const KeptOptions> inherited(const std::shared_ptr<const KeptOptions>& all) {
  const auto stays = [](const KeptOption& o) { return o.level == SOL_SOCKET && o.name == SO_PRIORITY; };
  if (std::ranges::none_of(*all, stays)) return all;
  auto rest = std::make_shared<KeptOptions>(*all);
  std::erase_if(*rest, stays);
  return rest;
}

bool wants_freebind(const Socket& s) {
  int value = 0;
  if (const KeptOption* option = find(s, IPPROTO_IP, IP_FREEBIND); option != nullptr)
    std::memcpy(&value, option->value.data(), sizeof value);
  return value != 0;
}

void unmark_listener(Process& process, Socket& s) {
  if (std::exchange(s.marked, false)) set_freebind(process.kernel, s.fd, s.v6, wants_freebind(s));
}

int try_in_kernel(Process& process, Socket& s, int level, int name, const void* v, socklen_t n) {
  return set_in_kernel(process, s, level, name, v, n, false);
}

int set_kept_option(Process& process, Socket& s, int level, int name, const void* v, socklen_t n) {
  const bool undecided = s.state == Socket::State::undecided;
  switch (const OptionKind kind = kind_of_option(level, name); kind) {
    case OptionKind::refused:
      return -ENOPROTOOPT;
    case OptionKind::passed:
      return set_in_kernel(process, s, level, name, v, n, false);
    case OptionKind::kept: {
      const int error = set_in_kernel(process, s, level, name, v, n, true);
      if (error == 0 && undecided && is_for_kernels_rules(process, level, name, v, n)) s.kernel_only = true;
      return error;
    }
    case OptionKind::kernels:
    case OptionKind::absent:
    case OptionKind::unknown: {
      if (kind == OptionKind::absent && !undecided) return -ENOPROTOOPT;
      const bool usual = is_usual(level, name, v, n);
      if (!usual && !undecided) return -ENOPROTOOPT;
      const int error = set_in_kernel(process, s, level, name, v, n, true);
      if (error == 0 && !usual) s.kernel_only = true;
      return error;
    }
  }
  return -ENOPROTOOPT;
}

int get_kept_option(Process& process, const Socket& s, int level, int name, void* v, socklen_t* n) {
  const OptionKind kind = kind_of_option(level, name);
  const bool undecided = s.state == Socket::State::undecided;
  const bool only_before = kind == OptionKind::unknown || kind == OptionKind::absent;
  if (kind == OptionKind::refused || (only_before && !undecided)) return -ENOPROTOOPT;
  if (const KeptOption* option = find(s, level, name); option != nullptr && !undecided) {
    *n = std::min(*n, option->size);
    std::memcpy(v, option->value.data(), *n);
    return 0;
  }
  if (is_freebind(s, level, name)) return give(wants_freebind(s) ? 1 : 0, v, n);
  if (level == SOL_SOCKET && name == SO_INCOMING_CPU && s.state == Socket::State::stream) return give(sched_getcpu(), v, n);
  const KernelSide side(process, s, false);
  return side.fd() < 0 ? side.fd() : process.kernel.getsockopt(side.fd(), level, name, v, n);
}

}  // namespace mtcp::intercept
