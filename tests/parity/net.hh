// What every case here needs: sockets that close themselves, a listener, a connected pair. Plain sockets API
// only. The server's address comes from MTCP_TEST_ADDRESS (127.0.0.1) and MTCP_TEST_ADDRESS6 (::1).
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace parity {

using std::chrono::milliseconds;

// An errno that prints its name when a comparison fails. 0 is success.
struct Errno {
  int value = 0;
  friend bool operator==(Errno e, int code) { return e.value == code; }
};
std::ostream& operator<<(std::ostream& out, Errno e);

// The error of a call that answers -1 and errno; to be wrapped directly around the call.
template <typename T>
Errno error_of(T result) {
  return Errno{result == static_cast<T>(-1) ? errno : 0};
}

// A descriptor, closed at the end of its scope.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) close_and_take(other.release());
    return *this;
  }
  ~Fd() { reset(); }
  operator int() const { return fd_; }  // NOLINT: every call wants an int
  int release() { return std::exchange(fd_, -1); }
  void reset() { close_and_take(-1); }

 private:
  void close_and_take(int fd) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }
  int fd_;
};

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] std::uint16_t port() const;
  [[nodiscard]] std::string host() const;
  [[nodiscard]] Address with_port(std::uint16_t port) const;
  friend bool operator==(const Address& a, const Address& b) {
    return a.family() == b.family() && a.port() == b.port() && a.host() == b.host();
  }
};
std::ostream& operator<<(std::ostream& out, const Address& a);

Address make_address(const std::string& host, std::uint16_t port);
Address server_address(int family = AF_INET, std::uint16_t port = 0);
Address wildcard_address(int family = AF_INET, std::uint16_t port = 0);
Address local_of(int fd);
Address peer_of(int fd);

Fd stream_socket(int family = AF_INET, int flags = 0);
Fd bound_socket(int family = AF_INET);
Fd listener(int backlog = 128, int family = AF_INET, int flags = 0);
Fd connected_to(const Address& to);
Fd accept_from(int listener, int flags = 0);

struct Pair {
  Fd client;
  Fd server;
};
Pair connected_pair(int family = AF_INET);
Pair connected_pair_via(int listener);
// Buffers of a few KB, so that they fill quickly.
Pair small_pair();

void set_nonblocking(int fd, bool on = true);
// Whether poll() shows any of `events` (or an error) within the time.
bool becomes(int fd, int events, milliseconds limit = milliseconds(5000));
// What poll() shows of `events` now, or when the first of them comes.
int poll_events(int fd, int events, milliseconds limit = milliseconds(0));

template <typename T = int>
T option(int fd, int level, int name) {
  T value{};
  socklen_t size = sizeof value;
  REQUIRE(error_of(::getsockopt(fd, level, name, &value, &size)) == 0);
  return value;
}
template <typename T>
void set_option(int fd, int level, int name, const T& value) {
  REQUIRE(error_of(::setsockopt(fd, level, name, &value, sizeof value)) == 0);
}

// The kernel's tcp_info (include/uapi/linux/tcp.h) as far as it is needed; libc's is shorter.
struct LongInfo {
  std::uint8_t known[104];
  std::uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
  std::uint32_t segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
  std::uint64_t delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
  std::uint32_t delivered, delivered_ce;
  std::uint64_t bytes_sent, bytes_retrans;
};
static_assert(sizeof(tcp_info) == 104 && sizeof(LongInfo) == 216);
LongInfo info_of(int fd);

// What ioctl() counts: bytes that can be read, unless it is asked for others.
int queued(int fd, unsigned long request = FIONREAD);

// Blocking transfers; false or a short string on end of stream or error.
bool send_all(int fd, std::string_view bytes);
std::string receive_exactly(int fd, std::size_t n);
std::string receive_until_end(int fd);
// Writes until nothing more is taken for a while; how many bytes went.
std::size_t fill(int fd);
// Reads without blocking what is there and what comes within 50 ms after; how many bytes came.
std::size_t drain(int fd);
// Reproducible noise, so that a shift or a repetition shows.
std::string pattern(std::size_t n, unsigned seed = 1);

class Stopwatch {
 public:
  [[nodiscard]] milliseconds elapsed() const {
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start_);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Runs `body` in a child process; its return value is the exit status that comes back (or 256 + signal).
template <typename Body>
int in_child(Body body);
int wait_for_child(pid_t child);

template <typename Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;  // a REQUIRE that failed: it must not go on as a second test run
    try {
      status = body();
    } catch (...) {
    }
    ::_exit(status);
  }
  return wait_for_child(child);
}

}  // namespace parity
