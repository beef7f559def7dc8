// Sockets that a process has not made itself: they came in a message (SCM_RIGHTS), or were left to it by exec. And numbers
// that it must not get.
#include <stdlib.h>
#include <sys/resource.h>

#include <cstring>

#include "tests/parity/child.hh"
#include "tests/parity/control_message.hh"

using namespace parity;

namespace {

struct Wire {
  Wire() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    near = Fd(fds[0]);
    far = Fd(fds[1]);
  }
  Fd near, far;
};

int serve_one(int listener) {
  if (!becomes(listener, POLLIN)) return 10;
  const Fd s(::accept(listener, nullptr, nullptr));
  return send_all(s, "served") ? 0 : 11;
}

void exec_python(const std::string& program) { ::execlp("python3", "python3", "-c", program.c_str(), nullptr); }

// As a service manager does: `l` is there under the number 3, for a program that is to come. False if it cannot be.
bool activate(int l) {
  ::setenv("LISTEN_FDS", "1", 1);
  ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  return l == 3 ? ::fcntl(3, F_SETFD, 0) == 0 : ::dup2(l, 3) == 3;
}

// Of a program that has a listener under `fd`: it talks to itself.
std::string conversation(int fd) {
  return "import socket\n"
         "l = socket.socket(fileno=" + std::to_string(fd) + ")\n"
         "l.listen(3)\n"
         "c = socket.create_connection(l.getsockname())\n"
         "s, _ = l.accept()\n"
         "s.sendall(b'answer')\n"
         "assert c.recv(100) == b'answer'\n";
}

}  // namespace

TEST_CASE("taken up: a bound socket that came in a message is listened on and served", "[taken_up]") {
  const Wire wire;
  Child child([&] {
    DescriptorMessage in;
    if (::recvmsg(wire.far, &in.m, 0) != 1) return 1;
    const Fd l(in.descriptor());
    if (::listen(l, 9) != 0) return 2;
    if (::write(wire.far, "x", 1) != 1) return 3;
    return serve_one(l);
  });
  Fd bound = bound_socket();
  const Address to = local_of(bound);
  const DescriptorMessage out(bound);
  REQUIRE(::sendmsg(wire.near, &out.m, 0) == 1);
  bound.reset();
  char listens = 0;
  REQUIRE(::read(wire.near, &listens, 1) == 1);
  REQUIRE(receive_until_end(connected_to(to)) == "served");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("taken up: a listener that came in a message is served", "[taken_up]") {
  const Wire wire;
  const Gate closed;
  Child child([&] {
    closed.wait();
    DescriptorMessage in;
    if (::recvmsg(wire.far, &in.m, MSG_CMSG_CLOEXEC) != 1) return 1;
    const Fd l(in.descriptor());
    if (option(l, SOL_SOCKET, SO_ACCEPTCONN) != 1 || local_of(l).port() == 0) return 2;
    if (::write(wire.far, "x", 1) != 1) return 3;
    return serve_one(l);
  });
  Fd l = listener();
  const Address to = local_of(l);
  const DescriptorMessage out(l);
  REQUIRE(::sendmsg(wire.near, &out.m, 0) == 1);
  l.reset();
  closed.open();
  char there = 0;
  REQUIRE(::read(wire.near, &there, 1) == 1);
  REQUIRE(receive_until_end(connected_to(to)) == "served");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("taken up: exec leaves a bound socket to a program that listens on it", "[taken_up]") {
  const Fd bound = bound_socket();
  REQUIRE(::fcntl(bound, F_SETFD, 0) == 0);
  REQUIRE(in_child([&] {
            exec_python(conversation(bound));
            return 98;
          }) == 0);
}

TEST_CASE("taken up: a listener of socket activation", "[taken_up]") {
  const Fd l = listener();
  REQUIRE(in_child([&] {
            if (activate(l)) exec_python(conversation(3));
            return 98;
          }) == 0);
}

TEST_CASE("taken up: a listener has the options that it had, and so has what is accepted from it", "[taken_up]") {
  const Fd l = stream_socket();
  const Address any = server_address();
  set_option(l, SOL_SOCKET, SO_RCVBUF, 20000);
  set_option(l, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  REQUIRE(error_of(::bind(l, any.get(), any.size)) == 0);
  REQUIRE(error_of(::listen(l, 7)) == 0);
  set_option(l, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
  set_option(l, IPPROTO_TCP, TCP_USER_TIMEOUT, 4321);
  set_option(l, SOL_SOCKET, 47, std::uint64_t{123456789});  // SO_MAX_PACING_RATE
  REQUIRE(::setsockopt(l, IPPROTO_TCP, TCP_FASTOPEN_KEY, "sixteen bytes...", 16) == 0);
  set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(l, SOL_SOCKET, SO_LINGER, linger{1, 3});
  const bool activated = GENERATE(true, false);
  REQUIRE(::fcntl(l, F_SETFD, 0) == 0);
  REQUIRE(in_child([&] {
            if (activated && !activate(l)) return 97;
            const int fd = activated ? 3 : l;
            exec_python("import socket as k, struct\n"
                        "l = k.socket(fileno=" + std::to_string(fd) + ")\n"
                        "c = k.create_connection(l.getsockname())\n"
                        "c.sendall(b'x')\n"
                        "s, _ = l.accept()\n"
                        "def is_(w, level, name, value): assert w.getsockopt(level, name) == value, (name, w.getsockopt(level, name))\n"
                        "for w in (l, s):\n"
                        " is_(w, k.IPPROTO_TCP, k.TCP_NODELAY, 1)\n"
                        " is_(w, k.IPPROTO_TCP, k.TCP_KEEPIDLE, 77)\n"
                        " is_(w, k.IPPROTO_TCP, 18, 4321)\n"
                        " is_(w, k.SOL_SOCKET, k.SO_KEEPALIVE, 1)\n"
                        " is_(w, k.SOL_SOCKET, k.SO_RCVBUF, 40000)\n"
                        " assert w.getsockopt(k.SOL_SOCKET, k.SO_LINGER, 8) == struct.pack('ii', 1, 3)\n"
                        " assert w.getsockopt(k.SOL_SOCKET, 47, 8) == struct.pack('Q', 123456789)\n"
                        "assert l.getsockopt(k.IPPROTO_TCP, 33, 32) == b'sixteen bytes...'\n"
                        "is_(l, k.IPPROTO_TCP, k.TCP_DEFER_ACCEPT, 3)\n");
            return 98;
          }) == 0);
}

TEST_CASE("taken up: a connection without FD_CLOEXEC is there in a program under its number", "[taken_up]") {
  const Pair pair = connected_pair();
  REQUIRE(::fcntl(pair.client, F_SETFD, FD_CLOEXEC) == 0);
  const Fd plain(::fcntl(pair.server, F_DUPFD, 20));  // without the flag
  REQUIRE(plain >= 20);
  // By bash: `sh` may be dash, whose redirections have one digit, and numbers are as high as others leave them.
  const auto print = [&](const char* word) { return std::string("printf ") + word + " >&" + std::to_string(plain); };
  REQUIRE(::system(("bash -c '" + print("ping") + "'").c_str()) == 0);
  REQUIRE(receive_exactly(pair.client, 4) == "ping");
  REQUIRE(in_child([&] {
            ::execlp("bash", "bash", "-c", print("pong").c_str(), nullptr);
            return 98;
          }) == 0);
  REQUIRE(receive_exactly(pair.client, 4) == "pong");
  REQUIRE(send_all(pair.client, "back"));
  REQUIRE(receive_exactly(plain, 4) == "back");
}

TEST_CASE("taken up: no number beyond a limit that has been lowered", "[taken_up]") {
  REQUIRE(in_child([] {
            const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
            ::close(fd);
            rlimit limit{};
            ::getrlimit(RLIMIT_NOFILE, &limit);
            const rlimit lowered{static_cast<rlim_t>(fd), limit.rlim_max};
            if (::setrlimit(RLIMIT_NOFILE, &lowered) != 0) return 1;
            if (::socket(AF_INET, SOCK_STREAM, 0) != -1 || errno != EMFILE) return 2;
            if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return 3;
            const Fd again(::socket(AF_INET, SOCK_STREAM, 0));
            if (again != fd) return 4;
            const Fd l = listener();
            return becomes(l, POLLIN, milliseconds(0)) ? 5 : 0;
          }) == 0);
}
