// dup(), dup2(), dup3(): several descriptors of one socket.
#include <fcntl.h>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("dup: both descriptors are the same connection", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup(pair.client));
  REQUIRE(copy >= 0);
  REQUIRE(send_all(pair.client, "one"));
  REQUIRE(send_all(copy, "two"));
  REQUIRE(receive_exactly(pair.server, 6) == "onetwo");
  REQUIRE(send_all(pair.server, "abcd"));
  REQUIRE(receive_exactly(copy, 2) == "ab");
  REQUIRE(receive_exactly(pair.client, 2) == "cd");
  REQUIRE(local_of(copy) == local_of(pair.client));
}

TEST_CASE("dup: closing one leaves the other, the last close ends the stream", "[dup]") {
  Pair pair = connected_pair();
  Fd copy(::dup(pair.client));
  pair.client.reset();
  REQUIRE_FALSE(becomes(pair.server, POLLIN, milliseconds(30)));
  REQUIRE(send_all(copy, "alive"));
  REQUIRE(receive_exactly(pair.server, 5) == "alive");
  copy.reset();
  REQUIRE(receive_until_end(pair.server).empty());
}

TEST_CASE("dup: shutdown of one descriptor is shutdown of the socket", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup(pair.client));
  REQUIRE(::shutdown(copy, SHUT_WR) == 0);
  REQUIRE(receive_until_end(pair.server).empty());
  REQUIRE(error_of(::send(pair.client, "x", 1, MSG_NOSIGNAL)) == EPIPE);
}

TEST_CASE("dup: status flags are shared, FD_CLOEXEC is not", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup(pair.client));
  set_nonblocking(copy);
  REQUIRE((::fcntl(pair.client, F_GETFL) & O_NONBLOCK) != 0);
  REQUIRE(::fcntl(copy, F_GETFD) == 0);
  REQUIRE(::fcntl(pair.client, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("dup: options are shared", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup(pair.client));
  set_option(copy, IPPROTO_TCP, TCP_NODELAY, 1);
  REQUIRE(option(pair.client, IPPROTO_TCP, TCP_NODELAY) == 1);
}

TEST_CASE("dup: of a fresh socket shares what it becomes", "[dup]") {
  const Fd l = listener();
  const Fd fresh = stream_socket();
  const Fd copy(::dup(fresh));
  const Address to = local_of(l);
  REQUIRE(error_of(::connect(copy, to.get(), to.size)) == 0);
  const Fd server = accept_from(l);
  REQUIRE(send_all(fresh, "x"));
  REQUIRE(receive_exactly(server, 1) == "x");
}

TEST_CASE("dup: of a listener accepts from the same queue", "[dup]") {
  Fd l = listener();
  const Fd copy(::dup(l));
  const Address to = local_of(l);
  const Fd a = connected_to(to);
  const Fd b = connected_to(to);
  REQUIRE(accept_from(copy) >= 0);
  REQUIRE(accept_from(l) >= 0);
  l.reset();
  const Fd c = connected_to(to);
  REQUIRE(accept_from(copy) >= 0);
}

TEST_CASE("dup: the last close of a listener's descriptors refuses connects", "[dup]") {
  Fd l = listener();
  Fd copy(::dup(l));
  const Address to = local_of(l);
  l.reset();
  copy.reset();
  const Fd client = stream_socket();
  REQUIRE(error_of(::connect(client, to.get(), to.size)) == ECONNREFUSED);
}

TEST_CASE("dup2: onto itself answers the number and changes nothing", "[dup]") {
  const Pair pair = connected_pair();
  REQUIRE(::dup2(pair.client, pair.client) == pair.client);
  REQUIRE(::fcntl(pair.client, F_GETFD) == FD_CLOEXEC);
  REQUIRE(send_all(pair.client, "same"));
  REQUIRE(receive_exactly(pair.server, 4) == "same");
}

TEST_CASE("dup2: onto another connection closes that one", "[dup]") {
  const Pair first = connected_pair();
  const Pair second = connected_pair();
  REQUIRE(::dup2(first.client, second.client) == second.client);
  REQUIRE(receive_until_end(second.server).empty());
  REQUIRE(send_all(second.client, "moved"));
  REQUIRE(receive_exactly(first.server, 5) == "moved");
}

TEST_CASE("dup2: of a connection onto a pipe closes the pipe", "[dup]") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  const Fd in(fds[0]);
  const Fd out(fds[1]);
  const Pair pair = connected_pair();
  REQUIRE(::dup2(pair.client, out) == out);
  char b = 0;
  REQUIRE(::read(in, &b, 1) == 0);
  REQUIRE(::write(out, "net", 3) == 3);
  REQUIRE(receive_exactly(pair.server, 3) == "net");
}

TEST_CASE("dup2: of a pipe onto a connection closes the connection", "[dup]") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  const Fd in(fds[0]);
  const Fd out(fds[1]);
  const Pair pair = connected_pair();
  REQUIRE(::dup2(out, pair.client) == pair.client);
  REQUIRE(receive_until_end(pair.server).empty());
  REQUIRE(::write(pair.client, "pipe", 4) == 4);
  char b[4];
  REQUIRE(::read(in, b, 4) == 4);
}

TEST_CASE("dup2: onto a free number takes it", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup2(pair.server, 300));
  REQUIRE(copy == 300);
  REQUIRE(::fcntl(copy, F_GETFD) == 0);
  REQUIRE(send_all(copy, "300"));
  REQUIRE(receive_exactly(pair.client, 3) == "300");
}

TEST_CASE("dup2: from a closed descriptor is EBADF and leaves the target alone", "[dup]") {
  const Pair pair = connected_pair();
  Fd gone = stream_socket();
  const int number = gone;
  gone.reset();
  REQUIRE(error_of(::dup2(number, pair.client)) == EBADF);
  REQUIRE(error_of(::dup(number)) == EBADF);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("dup2: to a number out of range is EBADF", "[dup]") {
  const Pair pair = connected_pair();
  REQUIRE(error_of(::dup2(pair.client, -1)) == EBADF);
  REQUIRE(error_of(::dup2(pair.client, 1 << 30)) == EBADF);
}

TEST_CASE("dup3: O_CLOEXEC sets FD_CLOEXEC, and onto itself is EINVAL", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::dup3(pair.client, 301, O_CLOEXEC));
  REQUIRE(copy == 301);
  REQUIRE(::fcntl(copy, F_GETFD) == FD_CLOEXEC);
  REQUIRE(error_of(::dup3(pair.client, pair.client, 0)) == EINVAL);
  REQUIRE(error_of(::dup3(pair.client, 302, 0x1)) == EINVAL);
  REQUIRE(send_all(copy, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("close_range: closes connections and listeners in its range and no others", "[dup]") {
  const Pair pair = connected_pair();
  const Fd low(::fcntl(pair.client, F_DUPFD_CLOEXEC, 400));
  Pair other = connected_pair();
  Fd inside(::fcntl(other.client, F_DUPFD_CLOEXEC, 410));
  REQUIRE(low < 410);
  REQUIRE(inside >= 410);
  other.client.reset();
  REQUIRE(error_of(::close_range(410, 500, 0)) == 0);
  REQUIRE(error_of(::fcntl(inside, F_GETFD)) == EBADF);
  inside.release();
  REQUIRE(receive_until_end(other.server).empty());
  REQUIRE(send_all(low, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("close_range: CLOSE_RANGE_CLOEXEC marks and does not close", "[dup]") {
  const Pair pair = connected_pair();
  const Fd copy(::fcntl(pair.client, F_DUPFD, 420));
  REQUIRE(::fcntl(copy, F_GETFD) == 0);
  REQUIRE(error_of(::close_range(420, 500, 1U << 2)) == 0);
  REQUIRE(::fcntl(copy, F_GETFD) == FD_CLOEXEC);
  REQUIRE(send_all(copy, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("close_range: an inverted range or an unknown flag is EINVAL", "[dup]") {
  REQUIRE(error_of(::close_range(500, 410, 0)) == EINVAL);
  REQUIRE(error_of(::close_range(500, 600, 1 << 20)) == EINVAL);
}
