// The message benchmark's server: one thread, one epoll set, level-triggered. Reads 64 bytes from a
// connection, answers with their complement, closes. Runs until SIGTERM or SIGINT and then prints what it has
// done. With THREADS there are so many, each with a listener (SO_REUSEPORT) and a set of its own.
//   msg_server ADDRESS PORT [BACKLOG [THREADS]]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "perf/message.hh"
#include "perf/number.hh"
#include "perf/stop.hh"

namespace mtcp::perf {
namespace {

struct Partial {  // what has come of a connection's message so far
  std::array<unsigned char, kMessageSize> data{};
  std::size_t size = 0;
};

class Server {
 public:
  bool listen_on(const char* address, std::uint16_t port, int backlog, bool beside_others);
  void run();
  void add(const Server& other);
  void report() const;

 private:
  void accept_all();
  void serve(int fd);
  void finish(int fd);
  void pause_accepting(bool paused);

  int listener_ = -1;
  int epoll_ = -1;
  bool paused_ = false;           // out of descriptors: accept again when one is free
  std::vector<Partial> partial_;  // by descriptor
  unsigned long served_ = 0, accepted_ = 0, broken_ = 0, out_of_descriptors_ = 0;
};

bool Server::listen_on(const char* address, std::uint16_t port, int backlog, bool beside_others) {
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_port = htons(port);
  if (inet_pton(AF_INET, address, &local.sin_addr) != 1) {
    std::fprintf(stderr, "msg_server: %s is no IPv4 address\n", address);
    return false;
  }
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  if (listener_ < 0 || setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      (beside_others && setsockopt(listener_, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) ||
      bind(listener_, reinterpret_cast<const sockaddr*>(&local), sizeof local) != 0 ||
      listen(listener_, backlog) != 0) {
    std::perror("msg_server: listen");
    return false;
  }
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.fd = listener_}};
  if (epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event) != 0) {
    std::perror("msg_server: epoll");
    return false;
  }
  return true;
}

void Server::pause_accepting(bool paused) {
  if (paused_ == paused) return;
  paused_ = paused;
  epoll_event event{.events = paused ? 0U : EPOLLIN, .data = {.fd = listener_}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, listener_, &event);
}

void Server::accept_all() {
  for (;;) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        out_of_descriptors_++;
        pause_accepting(true);
      }
      return;
    }
    accepted_++;
    if (static_cast<std::size_t>(fd) >= partial_.size())
      partial_.resize(static_cast<std::size_t>(fd) * 2 + 64);
    partial_[static_cast<std::size_t>(fd)].size = 0;
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      broken_++;
      close(fd);
    }
  }
}

void Server::serve(int fd) {
  Partial& p = partial_[static_cast<std::size_t>(fd)];
  const ssize_t got = read(fd, p.data.data() + p.size, kMessageSize - p.size);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    broken_++;
    finish(fd);
    return;
  }
  p.size += static_cast<std::size_t>(got);
  if (p.size < kMessageSize) return;
  for (unsigned char& byte : p.data) byte = static_cast<unsigned char>(~byte);
  // 64 bytes always fit into the buffer of a fresh connection; a short write can only be an error.
  if (write(fd, p.data.data(), kMessageSize) == static_cast<ssize_t>(kMessageSize)) {
    served_++;
  } else {
    broken_++;
  }
  finish(fd);
}

void Server::finish(int fd) {
  close(fd);
  pause_accepting(false);
}

void Server::run() {
  constexpr int kLook = 100;  // milliseconds: the signal ends the wait of one thread only
  std::array<epoll_event, 1024> events{};
  while (g_stop == 0) {
    const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), kLook);
    if (n < 0 && errno != EINTR) {
      std::perror("msg_server: epoll_wait");
      return;
    }
    for (int i = 0; i < n; i++) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener_) {
        accept_all();
      } else {
        serve(fd);
      }
    }
  }
}

void Server::add(const Server& other) {
  served_ += other.served_;
  accepted_ += other.accepted_;
  broken_ += other.broken_;
  out_of_descriptors_ += other.out_of_descriptors_;
}

void Server::report() const {
  std::printf("{\"accepted\": %lu, \"served\": %lu, \"broken\": %lu, \"out_of_descriptors\": %lu}\n",
              accepted_, served_, broken_, out_of_descriptors_);
}

// False if one of them can't listen.
bool run_threads(const char* address, std::uint16_t port, int backlog, unsigned n) {
  std::vector<Server> servers(n);
  std::vector<std::thread> threads;
  std::atomic<bool> good = true;
  for (Server& server : servers) {
    threads.emplace_back([&] {
      if (server.listen_on(address, port, backlog, true))
        server.run();
      else
        g_stop = 1, good = false;
    });
  }
  for (std::thread& t : threads) t.join();
  for (unsigned i = 1; i < n; ++i) servers[0].add(servers[i]);
  if (good) servers[0].report();
  return good;
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  using mtcp::perf::number;
  const auto port = argc >= 3 && argc <= 5 ? number<std::uint16_t>(argv[2], 1, 65535) : std::nullopt;
  const auto backlog = argc >= 4 ? number<int>(argv[3], 1, 1 << 20) : 16384;
  const auto threads = argc == 5 ? number<unsigned>(argv[4], 1, 64) : 0;
  if (!port || !backlog || !threads) {
    std::fprintf(stderr, "usage: msg_server ADDRESS PORT [BACKLOG [THREADS]]\n");
    return 2;
  }
  mtcp::perf::raise_descriptor_limit();
  mtcp::perf::stop_at_signals();
  if (*threads != 0) return mtcp::perf::run_threads(argv[1], *port, *backlog, *threads) ? 0 : 1;
  mtcp::perf::Server server;
  if (!server.listen_on(argv[1], *port, *backlog, false)) return 1;
  server.run();
  server.report();
  return 0;
}
