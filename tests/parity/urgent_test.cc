// Urgent data: MSG_OOB, SO_OOBINLINE, the mark, SIGURG, what poll, select and epoll say of it.
#include <fcntl.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include <linux/sockios.h>
#include <thread>

#include "tests/parity/epoll.hh"
#include "tests/parity/signals.hh"

namespace parity {
namespace {

void send_urgent(int fd, std::string_view bytes) {
  REQUIRE(::send(fd, bytes.data(), bytes.size(), MSG_OOB) == static_cast<ssize_t>(bytes.size()));
}

// The urgent byte has come.
void await_urgent(int fd) { REQUIRE(poll_events(fd, POLLPRI, milliseconds(5000)) == POLLPRI); }

std::string take(int fd, int flags = 0, std::size_t most = 64) {
  std::string s(most, '\0');
  const ssize_t n = ::recv(fd, s.data(), s.size(), flags | MSG_DONTWAIT);
  s.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return s;
}

Errno urgent_error(int fd, int flags = 0) {
  char c = 0;
  return error_of(::recv(fd, &c, 1, MSG_OOB | flags));
}

int at_mark(int fd) {
  int answer = -1;
  REQUIRE(::ioctl(fd, SIOCATMARK, &answer) == 0);
  REQUIRE(::sockatmark(fd) == answer);
  return answer;
}

// So many bytes can be read.
void await_available(int fd, int n) {
  while (queued(fd) != n) ::usleep(1000);
}

bool signalled(const SignalCounter& signals, int n = 1) {
  const Stopwatch watch;
  while (signals.count() < n && watch.elapsed() < milliseconds(5000)) ::usleep(1000);
  return signals.count() == n;
}

}  // namespace

TEST_CASE("urgent: the last byte of MSG_OOB is read apart, and the stream has a mark there", "[urgent]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "abc"));
  send_urgent(pair.client, "d!");
  REQUIRE(send_all(pair.client, "ef"));
  await_urgent(pair.server);
  REQUIRE(becomes(pair.server, POLLIN));
  await_available(pair.server, 4);
  REQUIRE(at_mark(pair.server) == 0);
  REQUIRE(take(pair.server, MSG_OOB | MSG_PEEK) == "!");
  REQUIRE(take(pair.server, MSG_OOB) == "!");
  REQUIRE(urgent_error(pair.server) == EINVAL);
  REQUIRE(poll_events(pair.server, POLLPRI | POLLIN) == POLLIN);
  REQUIRE(take(pair.server, MSG_PEEK) == "abcd");
  REQUIRE(take(pair.server) == "abcd");
  REQUIRE(at_mark(pair.server) == 1);
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(receive_exactly(pair.server, 2) == "ef");
  REQUIRE(at_mark(pair.server) == 0);
}

TEST_CASE("urgent: MSG_OOB without an urgent byte, with one, and after it has been read", "[urgent]") {
  Pair pair = connected_pair();
  char c = 0;
  REQUIRE(urgent_error(pair.server) == EINVAL);
  REQUIRE(error_of(::recv(pair.server, &c, 0, MSG_OOB)) == EINVAL);
  REQUIRE(urgent_error(stream_socket()) == EINVAL);
  REQUIRE(urgent_error(listener()) == ENOTCONN);
  send_urgent(pair.client, "!");
  await_urgent(pair.server);
  SECTION("into no room") {
    REQUIRE(::recv(pair.server, &c, 0, MSG_OOB) == 0);
    REQUIRE(urgent_error(pair.server) == EINVAL);
  }
  SECTION("by recvmsg, which says that it was urgent") {
    char room[2] = {};
    iovec v[2] = {{room, 0}, {room, 2}};
    msghdr m{};
    m.msg_iov = v;
    m.msg_iovlen = 2;
    REQUIRE(::recvmsg(pair.server, &m, MSG_OOB) == 1);
    REQUIRE(m.msg_flags == MSG_OOB);
    REQUIRE(room[0] == '!');
  }
  SECTION("by recvmsg without room") {
    msghdr m{};
    REQUIRE(::recvmsg(pair.server, &m, MSG_OOB) == 0);
    REQUIRE(m.msg_flags == (MSG_OOB | MSG_TRUNC));
  }
}

TEST_CASE("urgent: an urgent byte that is alone is not readable, and a read passes it", "[urgent]") {
  Pair pair = connected_pair();
  send_urgent(pair.client, "!");
  await_urgent(pair.server);
  REQUIRE(poll_events(pair.server, POLLIN | POLLPRI) == POLLPRI);
  REQUIRE(at_mark(pair.server) == 1);
  REQUIRE(queued(pair.server) == 0);
  char c = 0;
  REQUIRE(error_of(::recv(pair.server, &c, 1, MSG_DONTWAIT | MSG_PEEK)) == EAGAIN);
  REQUIRE(poll_events(pair.server, POLLPRI) == POLLPRI);
  REQUIRE(error_of(::recv(pair.server, &c, 1, MSG_DONTWAIT)) == EAGAIN);
  REQUIRE(poll_events(pair.server, POLLPRI) == 0);
  REQUIRE(urgent_error(pair.server) == EINVAL);
  REQUIRE(at_mark(pair.server) == 0);
  REQUIRE(send_all(pair.client, "next"));
  REQUIRE(receive_exactly(pair.server, 4) == "next");
}

TEST_CASE("urgent: SO_OOBINLINE leaves the byte in the stream, and a read ends before it", "[urgent]") {
  Pair pair = connected_pair();
  set_option(pair.server, SOL_SOCKET, SO_OOBINLINE, 1);
  REQUIRE(send_all(pair.client, "abc"));
  send_urgent(pair.client, "!");
  REQUIRE(send_all(pair.client, "de"));
  await_urgent(pair.server);
  await_available(pair.server, 6);
  REQUIRE(urgent_error(pair.server) == EINVAL);
  REQUIRE(take(pair.server) == "abc");
  REQUIRE(at_mark(pair.server) == 1);
  REQUIRE(poll_events(pair.server, POLLIN | POLLPRI) == (POLLIN | POLLPRI));
  REQUIRE(take(pair.server, MSG_PEEK) == "!de");
  REQUIRE(take(pair.server) == "!de");
  REQUIRE(at_mark(pair.server) == 0);
  REQUIRE(poll_events(pair.server, POLLPRI) == 0);
}

TEST_CASE("urgent: SO_OOBINLINE is inherited from the listener", "[urgent]") {
  const Fd door = listener();
  set_option(door, SOL_SOCKET, SO_OOBINLINE, 1);
  Pair pair = connected_pair_via(door);
  REQUIRE(option(pair.server, SOL_SOCKET, SO_OOBINLINE) == 1);
  send_urgent(pair.client, "!");
  REQUIRE(receive_exactly(pair.server, 1) == "!");
}

TEST_CASE("urgent: MSG_WAITALL ends at the mark", "[urgent]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "abc"));
  SECTION("that is there") {
    send_urgent(pair.client, "!");
    REQUIRE(send_all(pair.client, "def"));
    await_urgent(pair.server);
    await_available(pair.server, 3);
    char room[6];
    REQUIRE(::recv(pair.server, room, sizeof room, MSG_WAITALL) == 3);
    REQUIRE(receive_exactly(pair.server, 3) == "def");
  }
  SECTION("that comes while it waits") {
    std::thread later([&] {
      ::usleep(50'000);
      (void)!::send(pair.client, "!", 1, MSG_OOB);
    });
    char room[6];
    const ssize_t got = ::recv(pair.server, room, sizeof room, MSG_WAITALL);
    later.join();
    REQUIRE(got == 3);
    REQUIRE(take(pair.server, MSG_OOB) == "!");
  }
}

TEST_CASE("urgent: a second urgent byte takes the place of the first, which becomes data", "[urgent]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "a"));
  send_urgent(pair.client, "1");
  await_urgent(pair.server);
  REQUIRE(send_all(pair.client, "b"));
  send_urgent(pair.client, "2");
  REQUIRE(send_all(pair.client, "c"));
  await_available(pair.server, 3);
  REQUIRE(take(pair.server, MSG_OOB) == "2");
  REQUIRE(take(pair.server) == "a1b");
  REQUIRE(at_mark(pair.server) == 1);
  REQUIRE(receive_exactly(pair.server, 1) == "c");
}

TEST_CASE("urgent: a write of nothing is not urgent, and sending needs a connection", "[urgent]") {
  Pair pair = connected_pair();
  REQUIRE(::send(pair.client, "", 0, MSG_OOB) == 0);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(poll_events(pair.server, POLLPRI) == 0);
  REQUIRE(error_of(::send(stream_socket(), "!", 1, MSG_OOB | MSG_NOSIGNAL)) == EPIPE);
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(error_of(::send(pair.client, "!", 1, MSG_OOB | MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("urgent: the end of the stream behind an urgent byte", "[urgent]") {
  Pair pair = connected_pair();
  send_urgent(pair.client, "a!");
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  await_urgent(pair.server);
  REQUIRE(becomes(pair.server, POLLRDHUP));
  REQUIRE(receive_exactly(pair.server, 1) == "a");
  REQUIRE(becomes(pair.server, POLLIN));
  REQUIRE(take(pair.server, MSG_OOB) == "!");
  char c = 0;
  REQUIRE(::recv(pair.server, &c, 1, 0) == 0);
}

TEST_CASE("urgent: a cork holds back no urgent data", "[urgent]") {
  Pair pair = connected_pair();
  set_option(pair.client, IPPROTO_TCP, TCP_CORK, 1);
  send_urgent(pair.client, "ab!");
  // It has been sent at once, and not when the cork gives way.
  REQUIRE(queued(pair.client, SIOCOUTQNSD) == 0);
  await_urgent(pair.server);
  REQUIRE(receive_exactly(pair.server, 2) == "ab");
}

TEST_CASE("urgent: select shows it as an exceptional condition", "[urgent]") {
  Pair pair = connected_pair();
  send_urgent(pair.client, "!");
  fd_set read, except;
  FD_ZERO(&read);
  FD_ZERO(&except);
  FD_SET(pair.server, &read);
  FD_SET(pair.server, &except);
  timeval limit{5, 0};
  REQUIRE(::select(pair.server + 1, &read, nullptr, &except, &limit) == 1);
  REQUIRE(FD_ISSET(pair.server, &except));
  REQUIRE(!FD_ISSET(pair.server, &read));
}

TEST_CASE("urgent: epoll shows EPOLLPRI until the byte has been read", "[urgent]") {
  Pair pair = connected_pair();
  const Epoll set;
  SECTION("level-triggered") {
    set.add(pair.server, EPOLLPRI);
    REQUIRE(set.wait(0).empty());
    send_urgent(pair.client, "!");
    auto events = set.wait(5000);
    REQUIRE(events.size() == 1);
    REQUIRE(events[0].events == EPOLLPRI);
    REQUIRE(set.wait(0).size() == 1);
    REQUIRE(take(pair.server, MSG_OOB) == "!");
    REQUIRE(set.wait(0).empty());
  }
  SECTION("edge-triggered") {
    set.add(pair.server, EPOLLPRI | EPOLLIN | EPOLLET);
    send_urgent(pair.client, "!");
    REQUIRE(set.wait(5000).size() == 1);
    REQUIRE(set.wait(0).empty());
    REQUIRE(take(pair.server, MSG_OOB) == "!");
    send_urgent(pair.client, "?");
    auto events = set.wait(5000);
    REQUIRE(events.size() == 1);
    REQUIRE((events[0].events & EPOLLPRI) != 0);
  }
}

TEST_CASE("urgent: the owner gets SIGURG", "[urgent]") {
  const SignalCounter signals(SIGURG);
  Pair pair = connected_pair();
  REQUIRE(::fcntl(pair.server, F_GETOWN) == 0);
  SECTION("a process") {
    REQUIRE(::fcntl(pair.server, F_SETOWN, ::getpid()) == 0);
    REQUIRE(::fcntl(pair.server, F_GETOWN) == ::getpid());
  }
  SECTION("a group") { REQUIRE(::fcntl(pair.server, F_SETOWN, -::getpgrp()) == 0); }
  SECTION("a thread") {
    const f_owner_ex owner{F_OWNER_TID, static_cast<pid_t>(::syscall(SYS_gettid))};
    REQUIRE(::fcntl(pair.server, F_SETOWN_EX, &owner) == 0);
  }
  SECTION("by FIOSETOWN") {
    const int pid = ::getpid();
    REQUIRE(::ioctl(pair.server, FIOSETOWN, &pid) == 0);
    int owner = 0;
    REQUIRE(::ioctl(pair.server, SIOCGPGRP, &owner) == 0);
    REQUIRE(owner == pid);
  }
  SECTION("by SIOCSPGRP") {
    const int group = -::getpgrp();
    REQUIRE(::ioctl(pair.server, SIOCSPGRP, &group) == 0);
    int owner = 0;
    REQUIRE(::ioctl(pair.server, FIOGETOWN, &owner) == 0);
    REQUIRE(owner == group);
  }
  send_urgent(pair.client, "!");
  REQUIRE(signalled(signals));
  await_urgent(pair.server);
  REQUIRE(take(pair.server, MSG_OOB) == "!");
  send_urgent(pair.client, "?");
  REQUIRE(signalled(signals, 2));
}

TEST_CASE("urgent: SIGURG ends a poll, and no owner gets none", "[urgent]") {
  const SignalCounter signals(SIGURG);
  Pair pair = connected_pair();
  SECTION("an owner") {
    REQUIRE(::fcntl(pair.server, F_SETOWN, ::getpid()) == 0);
    std::thread later([&] {
      sigset_t all;
      ::sigfillset(&all);
      ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
      ::usleep(50'000);
      (void)!::send(pair.client, "!", 1, MSG_OOB);
    });
    pollfd nothing{pair.server, 0, 0};
    const Errno error = error_of(::poll(&nothing, 1, 5000));
    later.join();
    REQUIRE(error == EINTR);
    REQUIRE(signalled(signals));
  }
  SECTION("none") {
    send_urgent(pair.client, "!");
    await_urgent(pair.server);
    REQUIRE(signals.count() == 0);
  }
}

TEST_CASE("urgent: an owner that is not there cannot be set, and does not outlive its descriptor", "[urgent]") {
  Pair pair = connected_pair();
  REQUIRE(error_of(::fcntl(pair.server, F_SETOWN, 0x3ffffff)) == ESRCH);
  const f_owner_ex odd{static_cast<decltype(f_owner_ex::type)>(7), ::getpid()};
  REQUIRE(error_of(::fcntl(pair.server, F_SETOWN_EX, &odd)) == EINVAL);
  REQUIRE(::fcntl(pair.server, F_SETOWN, ::getpid()) == 0);
  pair.server.reset();
  for (int i = 0; i < 3; ++i) {
    Pair next = connected_pair();
    REQUIRE(::fcntl(next.server, F_GETOWN) == 0);
    REQUIRE(::fcntl(next.client, F_GETOWN) == 0);
  }
}

}  // namespace parity
