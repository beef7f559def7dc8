// A bad wire between two interfaces of a network namespace, each the end of a veth pair into another namespace:
//   bad_wire A B [KEY=VALUE...]        both directions alike
//   bad_wire A B a.loss=1% b.delay=5ms ...   `a.`: what comes in on A
// Keys are in link.hh; seed=N repeats the same chances. Offloads of all four ends must be off (README.md). Says "ready",
// ends by SIGTERM or SIGINT, and then prints what it has done.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "tests/bad_wire/link.hh"

namespace {

using bad_wire::Frame;
using bad_wire::Link;
using bad_wire::Nanoseconds;

constexpr unsigned kBurst = 64;
constexpr std::size_t kLargest = 16384;
constexpr Nanoseconds kLongestSleep = 50'000'000;

volatile sig_atomic_t ended = 0;
void end(int) { ended = 1; }

Nanoseconds now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Nanoseconds{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "bad_wire: %s: %s\n", what, strerror(errno));
  exit(1);
}

int open_interface(const char* name) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
  sockaddr_ll a{};
  a.sll_family = AF_PACKET;
  a.sll_protocol = htons(ETH_P_ALL);
  a.sll_ifindex = static_cast<int>(if_nametoindex(name));
  if (fd < 0 || a.sll_ifindex == 0) fail(name);
  const int room = 1 << 26, yes = 1;
  for (const int option : {SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE})
    setsockopt(fd, SOL_SOCKET, option, &room, sizeof room);
  setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes);
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) != 0 ||
      bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0)
    fail(name);
  return fd;
}

// Everything that has come in, a burst at most. False if nothing has.
bool receive(int fd, Link& link) {
  static std::array<std::array<std::uint8_t, kLargest>, kBurst> buffers;
  std::array<iovec, kBurst> parts;
  std::array<mmsghdr, kBurst> messages{};
  for (unsigned i = 0; i < kBurst; ++i) {
    parts[i] = {buffers[i].data(), kLargest};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const int n = recvmmsg(fd, messages.data(), kBurst, MSG_DONTWAIT, nullptr);
  const Nanoseconds t = now();
  for (int i = 0; i < n; ++i) {
    const auto* data = buffers[static_cast<std::size_t>(i)].data();
    link.take(Frame(data, data + messages[static_cast<std::size_t>(i)].msg_len), t);
  }
  return n > 0;
}

// Everything that is due, a burst at most. False if nothing is.
bool send(int fd, Link& link) {
  std::array<Frame, kBurst> frames;
  std::array<iovec, kBurst> parts;
  std::array<mmsghdr, kBurst> messages{};
  const Nanoseconds t = now();
  unsigned n = 0;
  for (; n < kBurst; ++n) {
    frames[n] = link.give(t);
    if (frames[n].empty()) break;
    parts[n] = {frames[n].data(), frames[n].size()};
    messages[n].msg_hdr.msg_iov = &parts[n];
    messages[n].msg_hdr.msg_iovlen = 1;
  }
  for (unsigned sent = 0; sent < n;) {
    const int done = sendmmsg(fd, &messages[sent], n - sent, 0);
    if (done <= 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) fail("sending");
    if (done > 0) sent += static_cast<unsigned>(done);
  }
  return n > 0;
}

void print(const char* direction, const bad_wire::Counts& c) {
  const auto u = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
  printf("%s frames=%llu bytes=%llu lost=%llu dropped=%llu reordered=%llu late=%llu duplicated=%llu corrupted=%llu "
         "marked=%llu\n",
         direction, u(c.frames), u(c.bytes), u(c.lost), u(c.dropped), u(c.reordered), u(c.late), u(c.duplicated),
         u(c.corrupted), u(c.marked));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fputs("usage: bad_wire INTERFACE INTERFACE [KEY=VALUE...]\n", stderr);
    return 2;
  }
  bad_wire::Options options[2];
  std::uint64_t seed = 1;
  for (int i = 3; i < argc; ++i) {
    const std::string text = argv[i];
    const std::size_t at = text.find('=');
    std::string key = text.substr(0, at);
    const std::string value = at == text.npos ? "" : text.substr(at + 1);
    const bool only_a = key.starts_with("a."), only_b = key.starts_with("b.");
    if (only_a || only_b) key = key.substr(2);
    bool good = true;
    if (key == "seed") {
      seed = strtoull(value.c_str(), nullptr, 10);
    } else {
      if (!only_b) good = options[0].set(key, value) && good;
      if (!only_a) good = options[1].set(key, value) && good;
    }
    if (good) continue;
    fprintf(stderr, "bad_wire: what is %s?\n", argv[i]);
    return 2;
  }
  struct sigaction action {};
  action.sa_handler = end;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  prctl(PR_SET_TIMERSLACK, 1);
  const int fds[2] = {open_interface(argv[1]), open_interface(argv[2])};
  Link links[2] = {{options[0], seed}, {options[1], seed + 1}};
  printf("ready\n");
  fflush(stdout);
  while (ended == 0) {
    bool busy = false;
    for (int d = 0; d < 2; ++d) busy = receive(fds[d], links[d]) || busy;
    for (int d = 0; d < 2; ++d) busy = send(fds[1 - d], links[d]) || busy;
    if (busy) continue;
    const Nanoseconds sleep = std::clamp<Nanoseconds>(std::min(links[0].next(), links[1].next()) - now(), 0, kLongestSleep);
    const timespec t{.tv_sec = 0, .tv_nsec = static_cast<long>(sleep)};
    pollfd p[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    (void)ppoll(p, 2, &t, nullptr);
  }
  print("a", links[0].counts());
  print("b", links[1].counts());
  return 0;
}
