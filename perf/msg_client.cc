// The message benchmark's client: keeps N connections going for some seconds; each one connects, sends 64
// bytes, reads until the end of the stream, checks the bytes and closes. One thread, one epoll set,
// edge-triggered. Prints one JSON object: connections finished within the time, per second, everything that
// went wrong, and the latency of a whole connection.
//   msg_client ADDRESS PORT CONCURRENCY SECONDS
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "perf/latency.hh"
#include "perf/message.hh"
#include "perf/number.hh"

namespace mtcp::perf {
namespace {

using Clock = std::chrono::steady_clock;

struct Exchange {  // one connection, from connect to close
  Clock::time_point started;
  std::uint64_t tag = 0;  // makes the message of each connection different
  std::uint32_t received = 0;
  bool open = false, sent = false;
  std::array<unsigned char, kMessageSize> answer{};
};

struct Errors {
  unsigned long connect = 0, io = 0, wrong = 0, closed_early = 0, unfinished = 0;
};

class Client {
 public:
  Client(const sockaddr_in& server, unsigned concurrency, double length)
      : server_(server), concurrency_(concurrency), length_(length) {}
  // False if the server could not be reached at all.
  bool run();
  void report() const;

 private:
  bool first_connection();
  bool start_one();
  void handle(int fd, std::uint32_t events);
  bool send_message(int fd, Exchange& x);
  void receive(int fd, Exchange& x);
  void finish(int fd, Exchange& x, unsigned long* error);
  void wait(int timeout);
  void refill();

  sockaddr_in server_;
  unsigned concurrency_;
  double length_;
  int epoll_ = -1;
  unsigned active_ = 0;
  std::uint64_t next_tag_ = 0;
  std::vector<Exchange> exchanges_;  // by descriptor
  std::unique_ptr<LatencyHistogram> latency_ = std::make_unique<LatencyHistogram>();
  unsigned long finished_ = 0;  // well, within the time
  Errors errors_;
  Clock::time_point deadline_;
  double elapsed_ = 0;
};

void fill(std::array<unsigned char, kMessageSize>& message, std::uint64_t tag) {
  for (std::size_t i = 0; i < kMessageSize; i += sizeof tag) {
    const std::uint64_t word = tag * 0x9E3779B97F4A7C15U + i;
    std::memcpy(message.data() + i, &word, sizeof word);
  }
}

bool is_answer(const std::array<unsigned char, kMessageSize>& answer, std::uint64_t tag) {
  std::array<unsigned char, kMessageSize> expected{};
  fill(expected, tag);
  for (unsigned char& byte : expected) byte = static_cast<unsigned char>(~byte);
  return answer == expected;
}

// Waits for the server (a device may have to come up first), so that start-up time is in no figure.
bool Client::first_connection() {
  const auto give_up = Clock::now() + std::chrono::seconds(10);
  for (;;) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{.tv_sec = 5, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    std::array<unsigned char, kMessageSize> message{};
    fill(message, 0);
    const bool answered =
        connect(fd, reinterpret_cast<const sockaddr*>(&server_), sizeof server_) == 0 &&
        write(fd, message.data(), kMessageSize) == static_cast<ssize_t>(kMessageSize) &&
        recv(fd, message.data(), kMessageSize, MSG_WAITALL) == static_cast<ssize_t>(kMessageSize) &&
        is_answer(message, 0);
    const int error = errno;
    close(fd);
    if (answered) return true;
    if (Clock::now() > give_up) {
      std::fprintf(stderr, "msg_client: no answer from the server: %s\n", std::strerror(error));
      return false;
    }
    usleep(50000);
  }
}

bool Client::start_one() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    errors_.connect++;
    return false;
  }
  if (static_cast<std::size_t>(fd) >= exchanges_.size())
    exchanges_.resize(static_cast<std::size_t>(fd) * 2 + 64);
  Exchange& x = exchanges_[static_cast<std::size_t>(fd)];
  x.started = Clock::now();
  x.tag = ++next_tag_;
  x.received = 0;
  x.open = true;
  x.sent = false;
  active_++;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&server_), sizeof server_) != 0 && errno != EINPROGRESS) {
    finish(fd, x, &errors_.connect);
    return false;
  }
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.fd = fd}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    finish(fd, x, &errors_.connect);
    return false;
  }
  return true;
}

void Client::finish(int fd, Exchange& x, unsigned long* error) {
  close(fd);
  x.open = false;
  active_--;
  if (error != nullptr) {
    (*error)++;
    return;
  }
  const auto now = Clock::now();
  if (now > deadline_) return;  // right, but too late to count
  finished_++;
  latency_->add(static_cast<std::uint64_t>(std::chrono::nanoseconds(now - x.started).count()));
}

bool Client::send_message(int fd, Exchange& x) {
  std::array<unsigned char, kMessageSize> message{};
  fill(message, x.tag);
  const ssize_t sent = write(fd, message.data(), kMessageSize);
  if (sent < 0 && errno == EAGAIN) return false;  // not connected yet
  if (sent != static_cast<ssize_t>(kMessageSize)) {
    finish(fd, x, errno == ECONNREFUSED || errno == ETIMEDOUT ? &errors_.connect : &errors_.io);
    return false;
  }
  x.sent = true;
  return true;
}

void Client::receive(int fd, Exchange& x) {
  for (;;) {
    unsigned char beyond = 0;  // one byte more than the message would be one too many
    const bool complete = x.received == kMessageSize;
    const ssize_t got =
        complete ? read(fd, &beyond, 1) : read(fd, x.answer.data() + x.received, kMessageSize - x.received);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) finish(fd, x, &errors_.io);
      return;
    }
    if (got == 0) {
      finish(fd, x,
             !complete                    ? &errors_.closed_early
             : is_answer(x.answer, x.tag) ? nullptr
                                          : &errors_.wrong);
      return;
    }
    if (complete) {
      finish(fd, x, &errors_.wrong);
      return;
    }
    x.received += static_cast<std::uint32_t>(got);
  }
}

void Client::handle(int fd, std::uint32_t events) {
  Exchange& x = exchanges_[static_cast<std::size_t>(fd)];
  if (!x.open) return;
  if (!x.sent && ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0 || !send_message(fd, x))) return;
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) receive(fd, x);
}

void Client::refill() {
  while (active_ < concurrency_ && start_one()) {
  }
}

void Client::wait(int timeout) {
  std::array<epoll_event, 1024> events{};
  const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
  for (int i = 0; i < n; i++) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    handle(event.data.fd, event.events);
  }
}

bool Client::run() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0 || !first_connection()) return false;
  const auto start = Clock::now();
  deadline_ = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(length_));
  while (Clock::now() < deadline_) {
    refill();
    wait(100);
  }
  elapsed_ = length_;
  // What is under way may end, but is not counted; what does not end is an error.
  const auto patience = Clock::now() + std::chrono::seconds(5);
  while (active_ > 0 && Clock::now() < patience) wait(100);
  errors_.unfinished = active_;
  return true;
}

void Client::report() const {
  const auto micros = [this](double fraction) {
    return static_cast<double>(latency_->percentile(fraction)) / 1000.0;
  };
  std::printf(
      "{\"connections\": %lu, \"seconds\": %.3f, \"per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
      "\"connect_errors\": %lu, "
      "\"io_errors\": %lu, \"wrong_bytes\": %lu, \"closed_early\": %lu, \"unfinished\": %lu}\n",
      finished_, elapsed_, static_cast<double>(finished_) / elapsed_, micros(0.5), micros(0.99),
      errors_.connect, errors_.io, errors_.wrong, errors_.closed_early, errors_.unfinished);
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  sockaddr_in server{};
  server.sin_family = AF_INET;
  using mtcp::perf::number;
  const auto port = argc == 5 ? number<std::uint16_t>(argv[2], 1, 65535) : std::nullopt;
  const auto concurrency = argc == 5 ? number<unsigned>(argv[3], 1, 1'000'000) : std::nullopt;
  const auto seconds = argc == 5 ? number<double>(argv[4], 0.001, 86400) : std::nullopt;
  if (!port || !concurrency || !seconds || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
    std::fprintf(stderr, "usage: msg_client IPV4-ADDRESS PORT CONCURRENCY SECONDS\n");
    return 2;
  }
  server.sin_port = htons(*port);
  std::signal(SIGPIPE, SIG_IGN);
  mtcp::perf::raise_descriptor_limit();
  mtcp::perf::Client client(server, *concurrency, *seconds);
  if (!client.run()) return 1;
  client.report();
  return 0;
}
