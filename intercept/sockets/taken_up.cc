// Sockets that another process has made or that are the kernel's, which the stack has a part in all the same.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include "intercept/call.hh"
#include "intercept/lifetime/program_key.hh"
#include "intercept/sockets/address.hh"
#include "intercept/sockets/freebind.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {
namespace {

int option(Process& process, int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return process.kernel.getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : 0;
}

// Whether the kernel socket has been bound to an interface: then it is to stay the kernel's.
bool is_bound_to_device(Process& process, int fd) {
  char name[16] = {};
  socklen_t size = sizeof name;
  return process.kernel.getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &size) == 0 && size > 0 && name[0] != 0;
}

// What the kernel socket has is the program's, unless it may be the mark of a listener (holders.hh).
void learn_freebind(Process& process, Socket& s) {
  const bool marked = s.local.address.is_any() && option(process, s.fd, SO_ACCEPTCONN) != 0 &&
                      process.options.awaits_joining_listeners();
  if (marked || !has_freebind(process.kernel, s.fd, s.v6)) return;
  const int on = 1;
  (void)set_option(process, s, s.v6 ? IPPROTO_IPV6 : IPPROTO_IP, s.v6 ? IPV6_FREEBIND : IP_FREEBIND, &on,
                   sizeof on);
}

int take_up_as_undecided(Process& process, int fd, bool nonblocking) {
  const int domain = option(process, fd, SO_DOMAIN);
  if (fd < 0 || fd >= process.files.size() || process.files.kind(fd) != FdKind::kernel) return -EBADF;
  if ((domain != AF_INET && domain != AF_INET6) || option(process, fd, SO_PROTOCOL) != IPPROTO_TCP) return -ENOTSOCK;
  if (!process.router.may_use_stack() || is_bound_to_device(process, fd)) return -ENOTSUP;
  Socket& s = *process.first().make_socket();
  s.v6 = domain == AF_INET6;
  s.fd = fd;
  s.kernel_dirty = true;
  s.local.address = s.remote.address = s.v6 ? stack::IpAddress::any_v6() : stack::IpAddress::any_v4();
  s.nonblocking = nonblocking;
  learn_options(process, s);
  if (const int error = record_local(process, s); error != 0) {
    process.first().free_socket(s);
    return error;
  }
  s.bound = s.local.port != 0;
  learn_freebind(process, s);
  const bool close_on_exec = (process.kernel.fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) != 0;
  (void)process.kernel.fcntl(fd, F_SETFD, FD_CLOEXEC);
  process.files.put_socket(fd, s, close_on_exec);
  return 0;
}

}  // namespace

int Process::take_up(int fd) {
  Guard guard(*this, Guard::Everything{});
  return take_up_as_undecided(*this, fd, (kernel.fcntl(fd, F_GETFL, 0) & O_NONBLOCK) != 0);
}

int Process::take_up_listener(int fd, int backlog, bool nonblocking) {
  Guard guard(*this, Guard::Everything{});
  if (fd >= 0 && fd < files.size() && files.kind(fd) == FdKind::kernel && option(*this, fd, SO_ACCEPTCONN) == 0) return -ENOTSOCK;
  if (const int error = take_up_as_undecided(*this, fd, nonblocking); error != 0) return error;
  successor = true;  // the program before may still have the device
  if (const std::uint64_t predecessor = number_of_predecessor(); predecessor != 0) program = predecessor;
  guard.unlock();
  const int error = listen(fd, backlog);
  guard.lock();
  // The kernel's, after all, if the configuration says so here.
  return error == 0 && files.socket(fd) == nullptr ? -ENOTSUP : error;
}

int Process::bind_beside(int fd, const sockaddr* a, socklen_t n) {
  Guard guard(*this, Guard::Everything{});
  const bool v6 = option(*this, fd, SO_DOMAIN) == AF_INET6;
  stack::Endpoint e;
  if (option(*this, fd, SO_TYPE) != SOCK_DGRAM || read_address(a, n, v6, e) != 0 || !router.owns(e.address, first().kernel_view())) return -EADDRNOTAVAIL;
  if (const int error = bind_freely(kernel, fd, v6, a, n); error != 0) return error;
  log(LogLevel::warning, "descriptor %d: datagrams to port %u of the stack's address do not arrive: only TCP does", fd, unsigned{e.port});
  return 0;
}

void Process::limits_changed() {
  Guard guard(*this, Guard::Everything{});
  shards.for_each([](Shard& s) { s.pool.clear(); });
}

}  // namespace mtcp::intercept
