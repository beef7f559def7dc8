// Sends back what comes, on connections that are kept. One thread, one epoll set. Ends at SIGTERM.
//   echo_server ADDRESS PORT
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "perf/message.hh"
#include "perf/number.hh"
#include "perf/stop.hh"

namespace mtcp::perf {
namespace {

int listen_on(const char* address, std::uint16_t port) {
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_port = htons(port);
  if (inet_pton(AF_INET, address, &local.sin_addr) != 1) return -1;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // what is accepted inherits it
  return bind(fd, reinterpret_cast<const sockaddr*>(&local), sizeof local) == 0 && listen(fd, 4096) == 0 ? fd : -1;
}

// False: the connection is over. A peer that does not read is waited for: others have to wait, too.
bool echo(int fd) {
  std::array<char, 65536> buffer;
  const ssize_t got = read(fd, buffer.data(), buffer.size());
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  for (ssize_t sent = 0; sent < got;) {
    const ssize_t n = write(fd, buffer.data() + sent, static_cast<std::size_t>(got - sent));
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n < 0) {
      pollfd room{.fd = fd, .events = POLLOUT, .revents = 0};
      poll(&room, 1, 1000);
      if (g_stop != 0) return false;
    }
    sent += n > 0 ? n : 0;
  }
  return got > 0;
}

void watch(int set, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) close(fd);
}

void run(int listener) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  watch(set, listener);
  std::array<epoll_event, 256> events{};
  while (g_stop == 0) {
    const int n = epoll_wait(set, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < n; i++) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener) {
        const int accepted = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) watch(set, accepted);
      } else if (!echo(fd)) {
        close(fd);
      }
    }
  }
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  const auto port = argc == 3 ? mtcp::perf::number<std::uint16_t>(argv[2], 1, 65535) : std::nullopt;
  if (!port) {
    std::fputs("usage: echo_server IPV4-ADDRESS PORT\n", stderr);
    return 2;
  }
  mtcp::perf::raise_descriptor_limit();
  mtcp::perf::stop_at_signals();
  const int listener = mtcp::perf::listen_on(argv[1], *port);
  if (listener < 0) {
    std::perror("echo_server: listen");
    return 1;
  }
  mtcp::perf::run(listener);
  return 0;
}
