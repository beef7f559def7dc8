// An open loop: sends so many requests a second over N connections that it keeps, on a schedule that does not wait for answers, and counts
// each one's latency from the moment at which it was due. So a server that stops for a second has made a second's requests late, not one
// (in a closed loop nothing would be sent meanwhile, and nothing measured: "coordinated omission"). One thread, one epoll set, and while
// a request is due soon it does not sleep. Prints one JSON object.
//   open_load --rate N --connections N --seconds N (--http PATH | --echo BYTES) IPV4-ADDRESS PORT
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "perf/latency.hh"
#include "perf/message.hh"
#include "perf/number.hh"
#include "perf/open_loop/answer.hh"

namespace mtcp::perf {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(5);       // for what is under way at the end
constexpr auto kGrace = std::chrono::milliseconds(500);  // for what was due before the end and is still to be sent

struct Wanted {
  double rate = 0, seconds = 0;
  unsigned connections = 1;
  std::string path;       // HTTP, if it is not empty
  std::size_t bytes = 0;  // else an echo of so many
  std::string host;
  sockaddr_in server{};
};

struct Connection {
  int fd = -1;
  bool busy = false;
  Clock::time_point due;  // when the request under way should have been sent
  std::string request;
  std::size_t sent = 0;
  HttpAnswer http;
  EchoAnswer echo;
};

struct Errors {
  unsigned long io = 0, wrong = 0, closed = 0, unfinished = 0;
};

class OpenLoop {
 public:
  explicit OpenLoop(const Wanted& wanted)
      : wanted_(wanted), total_(static_cast<std::uint64_t>(wanted.rate * wanted.seconds)), connections_(wanted.connections) {}
  bool connect_all();
  void run();
  void report() const;

 private:
  [[nodiscard]] Clock::time_point due(std::uint64_t number) const {
    return start_ + std::chrono::nanoseconds(static_cast<std::int64_t>(static_cast<double>(number) / wanted_.rate * 1e9));
  }
  int connect_one();
  void send_what_is_due(Clock::time_point now);
  void make_request(Connection& c, std::uint64_t number);
  void push(Connection& c);
  void receive(Connection& c);
  void finish(Connection& c, unsigned long* error);
  void wait(int timeout);
  [[nodiscard]] int time_to_wait(Clock::time_point now) const;

  Wanted wanted_;
  std::uint64_t total_, next_ = 0, answered_ = 0, unsent_ = 0;
  std::vector<Connection> connections_;
  std::deque<Connection*> idle_;
  unsigned busy_ = 0;
  int epoll_ = -1;
  Clock::time_point start_, end_;
  std::unique_ptr<LatencyHistogram> latency_ = std::make_unique<LatencyHistogram>();
  std::uint64_t longest_ = 0;
  double elapsed_ = 0;  // until the last answer
  Errors errors_;
};

int OpenLoop::connect_one() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&wanted_.server), sizeof wanted_.server) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return -1;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

// Waits for the server, and has all connections before the clock starts.
bool OpenLoop::connect_all() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  const auto give_up = Clock::now() + std::chrono::seconds(10);
  for (Connection& c : connections_) {
    while ((c.fd = connect_one()) < 0 && Clock::now() < give_up) usleep(50000);
    epoll_event event{.events = EPOLLIN, .data = {.ptr = &c}};
    if (c.fd < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &event) != 0) {
      std::fprintf(stderr, "open_load: no connection to the server: %s\n", std::strerror(errno));
      return false;
    }
    idle_.push_back(&c);
  }
  return true;
}

void OpenLoop::make_request(Connection& c, std::uint64_t number) {
  if (!wanted_.path.empty()) {
    if (c.request.empty()) c.request = "GET " + wanted_.path + " HTTP/1.1\r\nHost: " + wanted_.host + "\r\n\r\n";
    return;
  }
  c.request.resize(wanted_.bytes);
  for (std::size_t i = 0; i < c.request.size(); i++) c.request[i] = static_cast<char>((number * 0x9E3779B97F4A7C15U >> (i % 8 * 8)) + i);
  c.echo.expect(c.request);
}

void OpenLoop::send_what_is_due(Clock::time_point now) {
  while (next_ < total_ && !idle_.empty() && due(next_) <= now) {
    Connection& c = *idle_.front();
    idle_.pop_front();
    c.due = due(next_);
    c.busy = true;
    c.sent = 0;
    busy_++;
    make_request(c, next_++);
    push(c);
  }
}

void OpenLoop::push(Connection& c) {
  const bool waited = c.sent > 0;
  const ssize_t n = write(c.fd, c.request.data() + c.sent, c.request.size() - c.sent);
  if (n < 0 && errno != EAGAIN && errno != EINTR) return finish(c, &errors_.io);
  c.sent += static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  const bool all = c.sent == c.request.size();
  if (all && !waited) return;
  epoll_event event{.events = all ? EPOLLIN : EPOLLIN | EPOLLOUT, .data = {.ptr = &c}};
  epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
}

// With an error the connection is given up.
void OpenLoop::finish(Connection& c, unsigned long* error) {
  busy_ -= c.busy;
  const bool was_busy = std::exchange(c.busy, false);
  if (error != nullptr) {
    (*error)++;
    close(std::exchange(c.fd, -1));
    return;
  }
  if (!was_busy) return;
  const auto late = static_cast<std::uint64_t>(std::chrono::nanoseconds(Clock::now() - c.due).count());
  latency_->add(late);
  longest_ = std::max(longest_, late);
  answered_++;
  elapsed_ = std::chrono::duration<double>(Clock::now() - start_).count();
  idle_.push_back(&c);
}

void OpenLoop::receive(Connection& c) {
  std::array<char, 65536> buffer;
  const ssize_t n = read(c.fd, buffer.data(), buffer.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    std::erase(idle_, &c);
    return finish(c, n == 0 ? &errors_.closed : &errors_.io);
  }
  const std::string_view bytes(buffer.data(), static_cast<std::size_t>(n));
  const Progress progress = !c.busy ? Progress::kWrong : wanted_.path.empty() ? c.echo.take(bytes) : c.http.take(bytes);
  if (progress == Progress::kMore) return;
  if (progress == Progress::kWrong) std::erase(idle_, &c);
  finish(c, progress == Progress::kWrong ? &errors_.wrong : nullptr);
}

void OpenLoop::wait(int timeout) {
  std::array<epoll_event, 256> events{};
  const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
  for (int i = 0; i < n; i++) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    Connection& c = *static_cast<Connection*>(event.data.ptr);
    if ((event.events & EPOLLOUT) != 0) push(c);
    if (c.fd >= 0 && (event.events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) receive(c);
  }
}

// Milliseconds: never beyond the next request, nor near to it.
int OpenLoop::time_to_wait(Clock::time_point now) const {
  const auto until = next_ == total_ || idle_.empty() ? end_ + kPatience : now < end_ + kGrace ? due(next_) : end_ + kPatience;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(left - 1, 0, 100));
}

void OpenLoop::run() {
  start_ = Clock::now();
  end_ = due(total_);
  for (auto now = start_; busy_ > 0 || (next_ < total_ && now < end_ + kGrace); now = Clock::now()) {
    if (now < end_ + kGrace) send_what_is_due(now);
    if (now > end_ + kPatience || (busy_ == 0 && idle_.empty())) break;
    wait(time_to_wait(now));
  }
  errors_.unfinished = busy_;
  // They were due and never sent: late by this much at least, as of the end.
  for (; next_ < total_; next_++, unsent_++) {
    const auto late = static_cast<std::uint64_t>(std::max<std::int64_t>(0, std::chrono::nanoseconds(end_ - due(next_)).count()));
    latency_->add(late);
    longest_ = std::max(longest_, late);
  }
}

void OpenLoop::report() const {
  const auto micros = [this](double fraction) { return static_cast<double>(latency_->percentile(fraction)) / 1000.0; };
  std::printf(
      "{\"rate\": %.1f, \"seconds\": %.3f, \"due\": %llu, \"answered\": %llu, \"per_second\": %.1f, \"unsent\": %llu, \"p50_us\": %.1f, \"p90_us\": %.1f, "
      "\"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, \"io_errors\": %lu, \"wrong_answers\": %lu, \"closed_early\": %lu, "
      "\"unfinished\": %lu}\n",
      wanted_.rate, wanted_.seconds, static_cast<unsigned long long>(total_), static_cast<unsigned long long>(answered_), elapsed_ > 0 ? static_cast<double>(answered_) / elapsed_ : 0.0,
      static_cast<unsigned long long>(unsent_), micros(0.5), micros(0.9), micros(0.99), micros(0.999), static_cast<double>(longest_) / 1000.0,
      errors_.io, errors_.wrong, errors_.closed, errors_.unfinished);
}

template <class T>
bool take(std::string_view text, T low, T high, T& to) {
  const auto value = number<T>(text, low, high);
  if (value) to = *value;
  return value.has_value();
}

bool parse_option(int option, const char* value, Wanted& out) {
  switch (option) {
    case 'r':
      return take(value, 0.1, 1e8, out.rate);
    case 'c':
      return take(value, 1U, 100'000U, out.connections);
    case 's':
      return take(value, 0.001, 86400.0, out.seconds);
    case 'h':
      out.path = value;
      return out.path.starts_with('/');
    case 'e':
      return take<std::size_t>(value, 1, 1 << 20, out.bytes);
    default:
      return false;
  }
}

bool parse(int argc, char** argv, Wanted& out) {
  static const option kOptions[] = {{"rate", required_argument, nullptr, 'r'},    {"connections", required_argument, nullptr, 'c'},
                                    {"seconds", required_argument, nullptr, 's'}, {"http", required_argument, nullptr, 'h'},
                                    {"echo", required_argument, nullptr, 'e'},    {}};
  for (int option; (option = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;)
    if (!parse_option(option, optarg, out)) return false;
  if (argc - optind != 2 || out.path.empty() == (out.bytes == 0) || out.rate * out.seconds < 1 || out.rate * out.seconds > 1e10) return false;
  out.host = argv[optind];
  out.server.sin_family = AF_INET;
  std::uint16_t port = 0;
  if (!take<std::uint16_t>(argv[optind + 1], 1, 65535, port)) return false;
  out.server.sin_port = htons(port);
  return inet_pton(AF_INET, argv[optind], &out.server.sin_addr) == 1;
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  mtcp::perf::Wanted wanted;
  if (!mtcp::perf::parse(argc, argv, wanted)) {
    std::fputs("usage: open_load --rate N --connections N --seconds N (--http PATH | --echo BYTES) IPV4-ADDRESS PORT\n", stderr);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  mtcp::perf::raise_descriptor_limit();
  mtcp::perf::OpenLoop loop(wanted);
  if (!loop.connect_all()) return 1;
  loop.run();
  loop.report();
  return 0;
}
