// fork() and exec().
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>

#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

extern char** environ;

namespace {

// Whether a program that this one starts sees descriptor `fd` open.
bool seen_by_exec(int fd) {
  const std::string test = "test -e /proc/self/fd/" + std::to_string(fd);
  char* const arguments[] = {const_cast<char*>("sh"), const_cast<char*>("-c"),
                             const_cast<char*>(test.c_str()), nullptr};
  return in_child([&] {
           ::execv("/bin/sh", arguments);
           return 98;
         }) == 0;
}

// A whole conversation over a listener, as an exit status: 0 is good.
int talk_over(int listener) {
  const Address to = local_of(listener);
  const Fd client(::socket(AF_INET, SOCK_STREAM, 0));
  if (::connect(client, to.get(), to.size) != 0) return 1;
  const Fd server(::accept(listener, nullptr, nullptr));
  if (server < 0) return 2;
  if (!send_all(client, "from the child")) return 3;
  if (receive_exactly(server, 14) != "from the child") return 4;
  if (!send_all(server, "back")) return 5;
  return receive_exactly(client, 4) == "back" ? 0 : 6;
}

// What all threads of this process have run.
double cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

}  // namespace

TEST_CASE("an idle connection costs no CPU while its program sleeps elsewhere", "[process]") {
  const Pair p = connected_pair();
  REQUIRE(send_all(p.client, "once"));
  REQUIRE(receive_exactly(p.server, 4) == "once");
  // Until what is acknowledged late is: after that no timer runs out for a long time.
  std::this_thread::sleep_for(milliseconds(500));
  const double before = cpu_seconds();
  std::this_thread::sleep_for(milliseconds(400));
  CHECK(cpu_seconds() - before < 0.1);
}

TEST_CASE("fork: a child makes connections of its own", "[process]") {
  REQUIRE(in_child([] {
            const Fd l = listener();
            return talk_over(l);
          }) == 0);
}

TEST_CASE("fork: a child accepts from the listener that it inherited", "[process]") {
  const Fd l = listener();
  REQUIRE(in_child([&] { return talk_over(l); }) == 0);
}

TEST_CASE("fork: a child accepts from the listener after the parent has closed it", "[process]") {
  Fd l = listener();
  int fds[2];
  REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
  const Fd in(fds[0]);
  const Fd out(fds[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    char b = 0;
    if (::read(in, &b, 1) != 1) ::_exit(9);
    ::_exit(talk_over(l));
  }
  l.reset();
  REQUIRE(::write(out, "x", 1) == 1);
  REQUIRE(wait_for_child(child) == 0);
}

TEST_CASE("fork: a child that closes the listener does not close the parent's", "[process]") {
  Fd l = listener();
  REQUIRE(in_child([&] { return ::close(l.release()); }) == 0);
  const Pair pair = connected_pair_via(l);
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
}

TEST_CASE("fork: the parent's listener still works after a child used it", "[process]") {
  const Fd l = listener();
  REQUIRE(talk_over(l) == 0);
  REQUIRE(in_child([&] { return talk_over(l); }) == 0);
  REQUIRE(talk_over(l) == 0);
}

TEST_CASE("fork: a child that exits does not disturb the parent's connections", "[process]") {
  const Pair pair = connected_pair();
  REQUIRE(in_child([] { return 0; }) == 0);
  REQUIRE_FALSE(becomes(pair.server, POLLIN, milliseconds(30)));
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
}

TEST_CASE("fork: a child that closes its copies does not disturb the parent's connection", "[process]") {
  Pair pair = connected_pair();
  REQUIRE(in_child([&] {
            pair.client.reset();
            pair.server.reset();
            return 0;
          }) == 0);
  REQUIRE_FALSE(becomes(pair.server, POLLIN, milliseconds(30)));
  REQUIRE(send_all(pair.server, "still"));
  REQUIRE(receive_exactly(pair.client, 5) == "still");
}

TEST_CASE("fork: and wait, twenty times with a live connection", "[process]") {
  const Pair pair = connected_pair();
  for (int i = 0; i < 20; ++i) {
    REQUIRE(in_child([i] { return i; }) == i);
    REQUIRE(send_all(pair.client, "ping"));
    REQUIRE(receive_exactly(pair.server, 4) == "ping");
  }
}

TEST_CASE("fork: a child of a child serves too", "[process]") {
  const Fd l = listener();
  REQUIRE(in_child([&] { return in_child([&] { return talk_over(l); }); }) == 0);
}

TEST_CASE("fork: a child uses epoll on a set of its own", "[process]") {
  const Fd l = listener();
  REQUIRE(in_child([&] {
            const Epoll set;
            set.add(l, EPOLLIN);
            const Fd client = connected_to(local_of(l));
            if (set.next(l) != EPOLLIN) return 1;
            const Fd server = accept_from(l);
            set.add(server, EPOLLIN);
            if (!send_all(client, "x")) return 2;
            return set.next(server) == EPOLLIN ? 0 : 3;
          }) == 0);
}

TEST_CASE("fork: a listener bound before and put to listen in the child works there", "[process]") {
  const Fd bound = bound_socket();
  REQUIRE(in_child([&] {
            if (::listen(bound, 4) != 0) return 20;
            return talk_over(bound);
          }) == 0);
}

TEST_CASE("fork: after setsid and two forks a daemon serves", "[process]") {
  const Fd l = listener();
  REQUIRE(in_child([&] {
            ::setsid();
            const pid_t daemon = ::fork();
            if (daemon == 0) ::_exit(talk_over(l));
            return wait_for_child(daemon);
          }) == 0);
}

TEST_CASE("exec: does not see sockets with FD_CLOEXEC", "[process]") {
  const Fd l = listener();
  const Pair pair = connected_pair();
  REQUIRE_FALSE(seen_by_exec(l));
  REQUIRE_FALSE(seen_by_exec(pair.client));
  REQUIRE_FALSE(seen_by_exec(pair.server));
}

TEST_CASE("exec: sees a socket without FD_CLOEXEC", "[process]") {
  const Fd fresh(::socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(seen_by_exec(fresh));
  const Fd l = listener();
  REQUIRE(::fcntl(l, F_SETFD, 0) == 0);
  REQUIRE(seen_by_exec(l));
}

TEST_CASE("exec: a listener is served by the program that it was left to", "[process]") {
  const Fd l = listener();
  REQUIRE(::fcntl(l, F_SETFD, 0) == 0);
  const std::string program =
      "import socket\n"
      "l = socket.socket(fileno=" + std::to_string(l) + ")\n"
      "c = socket.create_connection(l.getsockname())\n"
      "s, _ = l.accept()\n"
      "s.sendall(b'answer')\n"
      "assert c.recv(100) == b'answer'\n"
      "l.listen(3)\n";
  REQUIRE(in_child([&] {
            ::execlp("python3", "python3", "-c", program.c_str(), nullptr);
            return 98;
          }) == 0);
}

TEST_CASE("exec: posix_spawn of a program does not disturb a connection", "[process]") {
  const Pair pair = connected_pair();
  char* const arguments[] = {const_cast<char*>("true"), nullptr};
  pid_t child = -1;
  REQUIRE(::posix_spawn(&child, "/bin/true", nullptr, nullptr, arguments, environ) == 0);
  REQUIRE(wait_for_child(child) == 0);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
}

TEST_CASE("exec: that fails leaves everything as it was", "[process]") {
  const Pair pair = connected_pair();
  char* const arguments[] = {const_cast<char*>("nothing"), nullptr};
  REQUIRE(error_of(::execv("/nonexistent/program", arguments)) == ENOENT);
  REQUIRE(::fcntl(pair.client, F_GETFD) == FD_CLOEXEC);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
}
