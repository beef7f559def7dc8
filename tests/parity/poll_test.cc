// poll(), ppoll(), select(), pselect().
#include <fcntl.h>
#include <signal.h>
#include <sys/select.h>

#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

struct Pipe {
  Fd in;
  Fd out;
  Pipe() {
    int fds[2];
    REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
    in = Fd(fds[0]);
    out = Fd(fds[1]);
  }
};

fd_set set_of(std::initializer_list<int> fds) {
  fd_set set;
  FD_ZERO(&set);
  for (const int fd : fds) FD_SET(fd, &set);
  return set;
}

}  // namespace

TEST_CASE("poll: counts the ready and fills revents of all", "[poll]") {
  const Pair a = connected_pair();
  const Pair b = connected_pair();
  REQUIRE(send_all(a.server, "x"));
  REQUIRE(becomes(a.client, POLLIN));
  pollfd p[3] = {{a.client, POLLIN, -1}, {b.client, POLLIN, -1}, {b.server, POLLOUT, -1}};
  REQUIRE(::poll(p, 3, 0) == 2);
  REQUIRE(p[0].revents == POLLIN);
  REQUIRE(p[1].revents == 0);
  REQUIRE(p[2].revents == POLLOUT);
}

TEST_CASE("poll: sockets and pipes together", "[poll]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  pollfd p[3] = {{pipe.in, POLLIN, 0}, {pair.client, POLLIN, 0}, {pipe.out, POLLOUT, 0}};
  REQUIRE(::poll(p, 3, 0) == 1);
  REQUIRE(p[2].revents == POLLOUT);
  REQUIRE(::write(pipe.out, "x", 1) == 1);
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(::poll(p, 3, 0) == 3);
}

TEST_CASE("poll: a pipe wakes a poll that also watches a socket, and the other way round", "[poll]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  pollfd p[2] = {{pipe.in, POLLIN, 0}, {pair.client, POLLIN, 0}};
  std::thread first([&] {
    std::this_thread::sleep_for(milliseconds(30));
    if (::write(pipe.out, "x", 1) != 1) std::abort();
  });
  const int by_pipe = ::poll(p, 2, 5000);
  first.join();
  REQUIRE(by_pipe == 1);
  REQUIRE(p[0].revents == POLLIN);
  char b = 0;
  REQUIRE(::read(pipe.in, &b, 1) == 1);
  std::thread second([&] {
    std::this_thread::sleep_for(milliseconds(30));
    send_all(pair.server, "x");
  });
  const int by_socket = ::poll(p, 2, 5000);
  second.join();
  REQUIRE(by_socket == 1);
  REQUIRE(p[1].revents == POLLIN);
}

TEST_CASE("poll: a closed descriptor is POLLNVAL and does not wait", "[poll]") {
  Pair pair = connected_pair();
  const int number = pair.client;
  pair.client.reset();
  pollfd p[2] = {{number, POLLIN, 0}, {pair.server, 0, 0}};
  REQUIRE(::poll(p, 1, 5000) == 1);
  REQUIRE(p[0].revents == POLLNVAL);
}

TEST_CASE("poll: POLLNVAL beside a socket that is ready counts both", "[poll]") {
  const Pair pair = connected_pair();
  Fd gone = stream_socket();
  const int number = gone;
  gone.reset();
  pollfd p[2] = {{number, POLLIN, 0}, {pair.client, POLLOUT, 0}};
  REQUIRE(::poll(p, 2, 5000) == 2);
  REQUIRE(p[0].revents == POLLNVAL);
  REQUIRE(p[1].revents == POLLOUT);
}

TEST_CASE("poll: negative descriptors are passed over", "[poll]") {
  const Pair pair = connected_pair();
  pollfd p[3] = {{-1, POLLIN, -1}, {pair.client, POLLOUT, 0}, {-7, POLLOUT, -1}};
  REQUIRE(::poll(p, 3, 0) == 1);
  REQUIRE(p[0].revents == 0);
  REQUIRE(p[2].revents == 0);
}

TEST_CASE("poll: without descriptors waits out its time", "[poll]") {
  const Stopwatch watch;
  REQUIRE(::poll(nullptr, 0, 40) == 0);
  REQUIRE(watch.elapsed() >= milliseconds(40));
}

TEST_CASE("poll: the same socket may stand in the list twice", "[poll]") {
  const Pair pair = connected_pair();
  pollfd p[2] = {{pair.client, POLLIN, 0}, {pair.client, POLLOUT, 0}};
  REQUIRE(::poll(p, 2, 0) == 1);
  REQUIRE(p[0].revents == 0);
  REQUIRE(p[1].revents == POLLOUT);
}

TEST_CASE("poll: waits as long as it was told, not less and not much more", "[poll]") {
  const Pair pair = connected_pair();
  for (const int time : {1, 10, 75}) {
    const Stopwatch watch;
    REQUIRE(poll_events(pair.client, POLLIN, milliseconds(time)) == 0);
    REQUIRE(watch.elapsed() >= milliseconds(time));
    REQUIRE(watch.elapsed() < milliseconds(time + 3000));
  }
}

TEST_CASE("poll: a negative timeout waits until something comes", "[poll]") {
  const Pair pair = connected_pair();
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(50));
    send_all(pair.server, "x");
  });
  const int events = poll_events(pair.client, POLLIN, milliseconds(-1));
  later.join();
  REQUIRE(events == POLLIN);
}

TEST_CASE("poll: asking for nothing still reports the end of both directions", "[poll]") {
  const Pair pair = connected_pair();
  REQUIRE(poll_events(pair.client, 0) == 0);
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  REQUIRE(poll_events(pair.client, 0, milliseconds(2000)) == POLLHUP);
}

TEST_CASE("poll: a listener is readable when a connection waits", "[poll]") {
  const Fd l = listener();
  REQUIRE(poll_events(l, POLLIN | POLLOUT) == 0);
  const Fd client = connected_to(local_of(l));
  REQUIRE(poll_events(l, POLLIN | POLLOUT, milliseconds(2000)) == POLLIN);
}

TEST_CASE("poll: a fresh socket is POLLOUT and POLLHUP", "[poll]") {
  const Fd fresh = stream_socket();
  REQUIRE(poll_events(fresh, POLLIN | POLLOUT) == (POLLOUT | POLLHUP));
}

TEST_CASE("poll: POLLRDNORM and POLLWRNORM follow POLLIN and POLLOUT", "[poll]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(becomes(pair.client, POLLIN));
  REQUIRE(poll_events(pair.client, POLLRDNORM | POLLWRNORM | POLLPRI) == (POLLRDNORM | POLLWRNORM));
}

TEST_CASE("ppoll: takes nanoseconds and null for no end", "[poll]") {
  const Pair pair = connected_pair();
  pollfd p{pair.client, POLLIN, 0};
  const timespec time{0, 30000000};
  const Stopwatch watch;
  REQUIRE(::ppoll(&p, 1, &time, nullptr) == 0);
  REQUIRE(watch.elapsed() >= milliseconds(30));
  REQUIRE(send_all(pair.server, "x"));
  REQUIRE(::ppoll(&p, 1, nullptr, nullptr) == 1);
  const timespec bad{-1, 0};
  REQUIRE(error_of(::ppoll(&p, 1, &bad, nullptr)) == EINVAL);
}

TEST_CASE("select: marks the ready in each set and counts marks", "[poll]") {
  const Pair a = connected_pair();
  const Pair b = connected_pair();
  REQUIRE(send_all(a.server, "x"));
  REQUIRE(becomes(a.client, POLLIN));
  fd_set r = set_of({a.client, b.client});
  fd_set w = set_of({a.client, b.server});
  fd_set x = set_of({a.client});
  timeval none{0, 0};
  REQUIRE(::select(FD_SETSIZE, &r, &w, &x, &none) == 3);
  REQUIRE(FD_ISSET(a.client, &r));
  REQUIRE_FALSE(FD_ISSET(b.client, &r));
  REQUIRE(FD_ISSET(a.client, &w));
  REQUIRE(FD_ISSET(b.server, &w));
  REQUIRE_FALSE(FD_ISSET(a.client, &x));
}

TEST_CASE("select: sockets and pipes together", "[poll]") {
  const Pair pair = connected_pair();
  const Pipe pipe;
  REQUIRE(::write(pipe.out, "x", 1) == 1);
  fd_set r = set_of({pair.client, pipe.in});
  timeval none{0, 0};
  REQUIRE(::select(FD_SETSIZE, &r, nullptr, nullptr, &none) == 1);
  REQUIRE(FD_ISSET(pipe.in, &r));
  REQUIRE_FALSE(FD_ISSET(pair.client, &r));
}

TEST_CASE("select: looks only at numbers below its first argument", "[poll]") {
  const Pair pair = connected_pair();
  fd_set w = set_of({pair.client});
  timeval none{0, 0};
  REQUIRE(::select(pair.client, nullptr, &w, nullptr, &none) == 0);
}

TEST_CASE("select: an empty wait clears the sets and takes its time", "[poll]") {
  const Pair pair = connected_pair();
  fd_set r = set_of({pair.client});
  timeval time{0, 40000};
  const Stopwatch watch;
  REQUIRE(::select(FD_SETSIZE, &r, nullptr, nullptr, &time) == 0);
  REQUIRE(watch.elapsed() >= milliseconds(40));
  REQUIRE_FALSE(FD_ISSET(pair.client, &r));
}

TEST_CASE("select: writes the time that is left back, as Linux does", "[poll]") {
  const Pair pair = connected_pair();
  fd_set w = set_of({pair.client});
  timeval time{5, 0};
  REQUIRE(::select(FD_SETSIZE, nullptr, &w, nullptr, &time) == 1);
  REQUIRE(time.tv_sec == 4);
}

TEST_CASE("select: a closed descriptor in a set is EBADF", "[poll]") {
  const Pair pair = connected_pair();
  Fd gone = stream_socket();
  fd_set r = set_of({gone, pair.client});
  gone.reset();
  timeval none{0, 0};
  REQUIRE(error_of(::select(FD_SETSIZE, &r, nullptr, nullptr, &none)) == EBADF);
}

TEST_CASE("select: the end of a stream and a reset are readable", "[poll]") {
  Pair pair = connected_pair();
  pair.server.reset();
  fd_set r = set_of({pair.client});
  timeval time{2, 0};
  REQUIRE(::select(FD_SETSIZE, &r, nullptr, nullptr, &time) == 1);
  REQUIRE(FD_ISSET(pair.client, &r));
}

TEST_CASE("select: a refused connect is both readable and writable", "[poll]") {
  const Fd holder = bound_socket();
  const Address to = local_of(holder);
  const Fd client = stream_socket(AF_INET, SOCK_NONBLOCK);
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == EINPROGRESS);
  REQUIRE(becomes(client, POLLOUT));
  fd_set r = set_of({client});
  fd_set w = r;
  timeval none{0, 0};
  REQUIRE(::select(FD_SETSIZE, &r, &w, nullptr, &none) == 2);
}

TEST_CASE("select: is woken by another thread's write", "[poll]") {
  const Pair pair = connected_pair();
  fd_set r = set_of({pair.client});
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(30));
    send_all(pair.server, "x");
  });
  timeval time{5, 0};
  const int n = ::select(FD_SETSIZE, &r, nullptr, nullptr, &time);
  later.join();
  REQUIRE(n == 1);
}

TEST_CASE("pselect: takes nanoseconds and leaves the time alone", "[poll]") {
  const Pair pair = connected_pair();
  fd_set r = set_of({pair.client});
  const timespec time{0, 30000000};
  const Stopwatch watch;
  REQUIRE(::pselect(FD_SETSIZE, &r, nullptr, nullptr, &time, nullptr) == 0);
  REQUIRE(watch.elapsed() >= milliseconds(30));
  REQUIRE(time.tv_nsec == 30000000);
}
