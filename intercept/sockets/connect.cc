// connect, in the steps of net/ipv4/af_inet.c: start, wait, result.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "intercept/call.hh"
#include "intercept/sockets/address.hh"
#include "intercept/sockets/local_listener.hh"
#include "intercept/sockopt/sockopt_kept.hh"
#include "intercept/support/errors.hh"
#include "intercept/support/memory.hh"
#include "intercept/waiting/wait.hh"

namespace mtcp::intercept {
namespace {

constexpr Router::Verdict kListenerInKernel{Router::Owner::kernel, "its listener is there"};
constexpr Router::Verdict kAddressApart{Router::Owner::kernel, "from an address that is not shared"};
constexpr Router::Verdict kWithoutSlot{Router::Owner::kernel, "no slot on the device is free"};

// The connection is gone; what bind() said stays, and the socket can connect again.
void back_to_undecided(Socket& s) {
  if (s.connection != nullptr) {
    s.connection->user = nullptr;
    s.shard->instance->worker().abort(*s.connection, now());
  }
  s.connection = nullptr;
  s.state = Socket::State::undecided;
  s.connecting = s.deferred = s.write_shut = s.read_shut = false;
  const stack::IpAddress any = s.v6 ? stack::IpAddress::any_v6() : stack::IpAddress::any_v4();
  s.remote = {any, 0};
  if (!s.bound) s.local = {any, 0};
}

// A handshake that is broken off leaves an error behind (tcp_disconnect).
void break_off(Socket& s) {
  const bool opening = s.connection != nullptr && s.connection->hot.state == stack::State::syn_sent;
  back_to_undecided(s);
  if (opening) s.error = stack::Errc::connection_reset;
}

// connect() with AF_UNSPEC.
int dissolve(Process& process, Socket& s) {
  if (s.state == Socket::State::stream) break_off(s);
  if (s.state == Socket::State::foreign || s.state == Socket::State::relayed || s.state == Socket::State::dead)
    return -ENOTCONN;
  if (s.state == Socket::State::listening) return stop_listening(process, s);
  if (s.deferred) back_to_undecided(s);
  return 0;
}

// What connect() takes the wildcard address for: this host.
stack::IpAddress loopback_for(const stack::IpAddress& any, bool v6) {
  if (any.is_v4() || !v6) return stack::IpAddress::v4(127, 0, 0, 1);
  stack::IpAddress one;
  one.bytes[15] = 1;
  return one;
}

// Who is to be connected with: what listens on this host is not always on this process's stack.
enum class Way { stack, kernel, locally };

Way way_to(Process& process, const Socket& s, const stack::Endpoint& remote) {
  const bool loopback = remote.address.is_any() || remote.address.is_loopback();
  if (!loopback && !process.router.owns(remote.address, s.shard->kernel_view())) return Way::stack;
  // A listener that another process has, too: either may be the one that accepts.
  const Socket* listener = process.listener_for(remote);
  if (listener != nullptr && !listener->shared && !listener->forked) return Way::stack;
  return loopback ? Way::kernel : process.has_relatives() ? Way::locally : Way::stack;
}

// `fast`: data that the SYN may take along, or null. kConnectsInKernel: what would be answered goes to the kernel. -EBUSY: no slot on
// the device.
int start(Process& process, Guard& guard, Socket& s, const stack::Endpoint& remote, stack::FastOpenStart* fast) {
  {
    const Hold hold_it(process, s);
    if (const int error = process.await_stack(guard, *s.shard); error != 0) return error;
    if (s.state != Socket::State::undecided || s.descriptors == 0) return -ECONNABORTED;  // by another thread
  }
  process.need_stack();
  s.shard->instance->moved(0);  // thousands of connects in a row: their SYNs leave as they come
  stack::Worker& worker = s.shard->instance->worker();
  const auto connection = fast != nullptr ? worker.connect(s.local, remote, s.options, now(), *fast)
                                          : worker.connect(s.local, remote, s.options, now());
  if (!connection) {
    // Linux has no EADDRINUSE here: the address in use is a pair of endpoints, or all ports are taken.
    const stack::Errc error = connection.error();
    if (error == stack::Errc::shut_down) return kConnectsInKernel;
    return -to_errno(error == stack::Errc::address_in_use ? stack::Errc::address_unavailable : error);
  }
  s.serial = s.shard->next_serial();
  s.error = stack::Errc::ok;
  s.deferred = false;
  attach(s, **connection);
  s.connecting = true;
  return 0;
}

// Why the kernel has what start() could not do; null: it has not.
const Router::Verdict* left_to_kernel(Process& process, int error) {
  if (error == kConnectsInKernel) return &kAddressApart;
  if (error == -ENETDOWN && process.on_kernel) return &kWithoutDevice;
  if (error != -EBUSY || !process.options.device.falls_back()) return nullptr;
  return &kWithoutSlot;
}

// To a program no slot is no local address to be had, as when all ports are taken.
int connect_error(int error) { return error == -EBUSY || error == kConnectsInKernel ? -EADDRNOTAVAIL : error; }

// The handshake is over, one way or the other.
int finish(Socket& s) {
  if (s.connection->hot.state != stack::State::closed) {
    s.connecting = false;
    return 0;
  }
  const int error = to_errno(s.shard->instance->worker().take_error(*s.connection));
  back_to_undecided(s);
  return error != 0 ? -error : -ECONNABORTED;
}

// `pending`: what a connect that does not wait, or not to the end, says.
int wait_for_handshake(Process& process, Guard& guard, Socket& s, int pending) {
  if (pending == -EALREADY) settle(process, s);
  if (is_opening(*s.connection) && pending == -EALREADY && s.nonblocking) (void)retry_after_turn(process, s);
  if (!is_opening(*s.connection)) return finish(s);
  if (s.nonblocking) {
    s.shard->instance->hand_over();
    return pending;
  }
  const Hold hold_it(process, s);
  const stack::Time deadline = deadline_after(s.send_timeout);
  for (;;) {
    const int error = wait_for(process, guard, s, EPOLLOUT, deadline, deadline == stack::kNever);
    if (s.state != Socket::State::stream)
      return -ECONNABORTED;  // shutdown() or connect(AF_UNSPEC) in another thread
    if (!is_opening(*s.connection)) return finish(s);
    if (error == -EAGAIN) return pending;
    if (error != 0) return error;
  }
}

// connect_locally(), and if the listener's queue is full as long as a blocking call waits.
int connect_nearby(Process& process, Guard& guard, Socket& s, const stack::Endpoint& remote) {
  const Hold hold_it(process, s);
  const stack::Time deadline = deadline_after(s.send_timeout);
  for (;;) {
    const int error = connect_locally(process, s, remote);
    if (error != -EAGAIN || s.nonblocking || now() >= deadline) return error;
    WaitLoop wait(process, guard, std::min(deadline, now() + stack::milliseconds(1)), nullptr);
    int waited = 0;
    for (wait.turn(); waited == 0; wait.turn()) waited = wait.idle({}, [](Sleeper&) {});
    if (waited != -EAGAIN) return waited;
    if (s.state != Socket::State::undecided || s.descriptors == 0) return -ECONNABORTED;  // by another thread
  }
}

// TCP_FASTOPEN_CONNECT with a cookie: the SYN waits for the first data (tcp_fastopen_defer_connect).
bool defers(Process& process, Guard& guard, Socket& s, const stack::Endpoint& remote) {
  const Hold hold_it(process, s);
  if (process.await_stack(guard, *s.shard) != 0 || s.state != Socket::State::undecided || s.descriptors == 0) return false;
  return s.shard->instance->worker().is_fast_open_ready(s.local, remote, s.options, now());
}

}  // namespace

int connect_undecided(Process& process, Guard& guard, Socket& s, const sockaddr* a, socklen_t n,
                      stack::FastOpenStart* fast) {
  if (!memory_to_spare()) return -ENOMEM;
  stack::Endpoint remote;
  if (const int error = read_address(a, n, s.v6, remote); error != 0) return error;
  if (s.v6_only && remote.address.is_v4()) return -ENETUNREACH;
  const auto in_kernel = [&](const Router::Verdict& why) {
    process.decisions.connects(s.shard->connects, remote, why);
    const int error = process.hand_to_kernel(s);
    return error != 0 ? error : kConnectsInKernel;
  };
  process.follow_kernel(*s.shard);
  process.miss_interface(remote.address);
  const Router::Verdict verdict = s.kernel_only ? kKernelOnly : process.on_kernel ? kWithoutDevice : process.router.judge_connect(s.local, remote, s.shard->kernel_view());
  if (verdict.owner == Router::Owner::kernel) return in_kernel(verdict);
  if (remote.address.is_any()) remote.address = loopback_for(remote.address, s.v6);
  const Way way = way_to(process, s, remote);
  if (way == Way::kernel) return in_kernel(kListenerInKernel);
  const auto on_stack = [&](int error) {
    process.decisions.connects(s.shard->connects, remote, verdict);
    return error;
  };
  if (way == Way::locally)
    if (const int error = connect_nearby(process, guard, s, remote); error != -ECONNREFUSED)
      return on_stack(error);
  if (fast == nullptr && s.fast_open_connect && defers(process, guard, s, remote)) {
    s.remote = remote;
    s.deferred = true;
    return on_stack(0);
  }
  stack::FastOpenStart nothing;  // asks for a cookie
  if (fast == nullptr && s.fast_open_connect) fast = &nothing;
  const int error = start(process, guard, s, remote, fast);
  if (error == -ECONNABORTED) return error;  // the socket is another thread's by now, or gone
  if (const Router::Verdict* why = left_to_kernel(process, error); why != nullptr) return in_kernel(*why);
  if (on_stack(error) != 0) return connect_error(error);
  return wait_for_handshake(process, guard, s, -EINPROGRESS);
}

int connect_deferred(Process& process, Guard& guard, Socket& s, stack::FastOpenStart& fast) {
  const stack::Endpoint remote = s.remote;
  if (const int error = start(process, guard, s, remote, &fast); error != 0) {
    back_to_undecided(s);
    return connect_error(error);
  }
  return wait_for_handshake(process, guard, s, -EINPROGRESS);
}

int abandon_connect(Socket& s) {
  break_off(s);
  notify(s, EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR);
  return 0;
}

int stop_listening(Process& process, Socket& s) {
  if (s.listener != nullptr) process.end_listening(s, false);
  process.forget_listener(s);
  const bool kernel_listened = std::exchange(s.kernel_listens, false);
  s.state = Socket::State::undecided;
  const sockaddr none{.sa_family = AF_UNSPEC, .sa_data = {}};
  const int error = process.kernel.connect(s.fd, &none, sizeof none);
  // What the kernel's side has had for our sake only: accept must not have blocked there.
  if (kernel_listened) (void)process.kernel.fcntl(s.fd, F_SETFL, O_RDWR);
  unmark_listener(process, s);
  notify(s, EPOLLIN | EPOLLHUP);  // who waits in accept gets EINVAL
  return error;
}

void Process::choose_shard(Guard& guard, int fd, const sockaddr* a, socklen_t n) {
  if (a == nullptr || n < sizeof(sa_family_t)) return;
  if (a->sa_family == AF_UNSPEC) return guard.widen();
  Shard* own = shards.of_thread();
  struct Aim {
    Shard* shard;  // null: whose the socket is
    bool simple;   // it takes no other's lock
  };
  const auto aim = [&](const Socket& s) -> Aim {
    stack::Endpoint remote;
    if (read_address(a, n, s.v6, remote) != 0) return {own, false};
    if (remote.address.is_any()) remote.address = loopback_for(remote.address, s.v6);
    const Socket* l = listener_for(remote, s.shard);
    // On this host without a listener here it may become the kernel's, or another process's.
    const bool elsewhere = l == nullptr && !remote.address.is_loopback() && !router.owns(remote.address, s.shard->kernel_view());
    const bool here = l != nullptr && !l->shared && !l->forked;
    return {l != nullptr ? l->shard : own, (elsewhere || here) && s.watchers.empty()};
  };
  Socket* s = guard.covered(fd) != nullptr ? files.socket(fd) : nullptr;
  if (s == nullptr || s->state != Socket::State::undecided || s->deferred) return;
  if (const Aim w = aim(*s); w.simple && (w.shard == nullptr || w.shard == s->shard)) return;
  guard.widen();
  s = files.socket(fd);
  if (s == nullptr || s->state != Socket::State::undecided) return;
  const Aim w = aim(*s);
  if (w.shard != nullptr) change_shard(*s, *w.shard);
  guard.be_about(*s->shard);
  if (w.simple) guard.narrow(*s->shard);
}

int Process::connect(int fd, const sockaddr* a, socklen_t n) {
  Guard guard(*this, fd);
  if (shards.several()) [[unlikely]] choose_shard(guard, fd, a, n);
  Socket* s = files.socket(fd);
  if (s == nullptr) return -EBADF;
  if (static_cast<int>(n) < 0 || n > sizeof(sockaddr_storage)) return -EINVAL;
  if (a == nullptr && n > 0) return -EFAULT;
  if (n < sizeof(sa_family_t)) return -EINVAL;
  if (a->sa_family == AF_UNSPEC) return dissolve(*this, *s);
  switch (s->state) {
    case Socket::State::listening:
    case Socket::State::foreign:
    case Socket::State::relayed:
      return -EISCONN;
    case Socket::State::dead:
      return -ENOTCONN;
    case Socket::State::stream:
      return s->connecting ? wait_for_handshake(*this, guard, *s, -EALREADY) : -EISCONN;
    case Socket::State::undecided:
      break;
  }
  if (s->deferred) return -EISCONN;
  const int result = connect_undecided(*this, guard, *s, a, n, nullptr);
  if (result != kConnectsInKernel) return result;
  guard.unlock();
  return kernel.connect(fd, a, n);
}

}  // namespace mtcp::intercept
