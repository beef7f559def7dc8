// One connection in several processes: fork, exec, SCM_RIGHTS.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/wait.h>

#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "tests/parity/epoll.hh"

using namespace parity;

namespace {

// A child that runs `body`, whose result is its exit status; it is killed and waited for at the end of the
// scope.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    int status = 99;
    try {
      status = body();
    } catch (...) {
    }
    ::_exit(status);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    (void)wait_for_child(pid_);
  }
  int wait() { return wait_for_child(std::exchange(pid_, -1)); }

 private:
  pid_t pid_;
};

// A pipe by which processes wait for each other. A copy of the other end in a third process does not matter.
class Gate {
 public:
  Gate() { REQUIRE(::pipe2(fds_, O_CLOEXEC) == 0); }
  ~Gate() {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() const { (void)!::write(fds_[1], "x", 1); }
  void wait() const {
    char c = 0;
    (void)!::read(fds_[0], &c, 1);
  }

 private:
  int fds_[2];
};

int echo_until_end(int fd) {
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) return 0;
    if (n < 0) return 1;
    if (!send_all(fd, {buffer, static_cast<std::size_t>(n)})) return 2;
  }
}

bool ends(int fd) { return receive_until_end(fd).empty(); }

}  // namespace

TEST_CASE("shared: accepted in the parent, served in the child", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    return echo_until_end(pair.server);
  });
  pair.server.reset();
  for (int i = 0; i < 20; ++i) {
    REQUIRE(send_all(pair.client, "question"));
    REQUIRE(receive_exactly(pair.client, 8) == "question");
  }
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: what came before the fork is read by the child", "[shared]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "early"));
  REQUIRE(becomes(pair.server, POLLIN));
  Child child([&] {
    pair.client.reset();
    if (receive_exactly(pair.server, 5) != "early") return 1;
    return send_all(pair.server, "got it") ? 0 : 2;
  });
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "got it");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: the connection stays open until the child, too, has closed it", "[shared]") {
  Pair pair = connected_pair();
  const Gate gate;
  Child child([&] {
    pair.client.reset();
    gate.wait();
    pair.server.reset();
    gate.wait();
    return 0;
  });
  pair.server.reset();
  REQUIRE_FALSE(becomes(pair.client, POLLIN, milliseconds(50)));
  gate.open();
  REQUIRE(ends(pair.client));
  gate.open();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: the connection ends when a child that never used it exits", "[shared]") {
  Pair pair = connected_pair();
  const Gate gate;
  Child child([&] {
    pair.client.reset();
    gate.wait();
    return 7;
  });
  pair.server.reset();
  REQUIRE_FALSE(becomes(pair.client, POLLIN, milliseconds(30)));
  gate.open();
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 7);
}

TEST_CASE("shared: a child that used the connection exits without close", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    return send_all(pair.server, "bye") ? 0 : 1;
  });
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "bye");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: parent and child both write", "[shared]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.server, "1"));
  REQUIRE(in_child([&] { return send_all(pair.server, "2") ? 0 : 1; }) == 0);
  REQUIRE(send_all(pair.server, "3"));
  REQUIRE(in_child([&] { return send_all(pair.server, "4") ? 0 : 1; }) == 0);
  REQUIRE(send_all(pair.server, "5"));
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "12345");
}

TEST_CASE("shared: parent and child read in turn", "[shared]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "abcdef"));
  REQUIRE(receive_exactly(pair.server, 2) == "ab");
  REQUIRE(in_child([&] { return receive_exactly(pair.server, 2) == "cd" ? 0 : 1; }) == 0);
  REQUIRE(receive_exactly(pair.server, 2) == "ef");
  REQUIRE(send_all(pair.client, "gh"));
  REQUIRE(receive_exactly(pair.server, 2) == "gh");
}

TEST_CASE("shared: the child closes its copy after use, the parent goes on", "[shared]") {
  const Pair pair = connected_pair();
  REQUIRE(in_child([&] {
            if (!send_all(pair.server, "child")) return 1;
            return ::close(pair.server);
          }) == 0);
  REQUIRE(receive_exactly(pair.client, 5) == "child");
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
  REQUIRE(send_all(pair.server, "here"));
  REQUIRE(receive_exactly(pair.client, 4) == "here");
}

TEST_CASE("shared: a child that closes its copy unused leaves the parent's alone", "[shared]") {
  Pair pair = connected_pair();
  REQUIRE(in_child([&] { return ::close(pair.server) + ::close(pair.client); }) == 0);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
  pair.server.reset();
  REQUIRE(ends(pair.client));
}

TEST_CASE("shared: half close by the child", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    if (!send_all(pair.server, "request")) return 1;
    if (::shutdown(pair.server, SHUT_WR) != 0) return 2;
    return receive_until_end(pair.server) == "answer" ? 0 : 3;
  });
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "request");
  REQUIRE(send_all(pair.client, "answer"));
  pair.client.reset();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: half close by the peer", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    if (receive_until_end(pair.server) != "all of it") return 1;
    return send_all(pair.server, "thanks") ? 0 : 2;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "all of it"));
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(receive_until_end(pair.client) == "thanks");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a shutdown in the parent counts for the child", "[shared]") {
  Pair pair = connected_pair();
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  Child child([&] {
    pair.client.reset();
    if (receive_exactly(pair.server, 4) != "ping") return 1;
    return ::send(pair.server, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE ? 0 : 2;
  });
  REQUIRE(ends(pair.client));
  REQUIRE(send_all(pair.client, "ping"));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a megabyte each way at the same time", "[shared]") {
  Pair pair = connected_pair();
  const std::string up = pattern(1 << 20, 1);
  const std::string down = pattern((1 << 20) + 17, 2);
  Child child([&] {
    pair.client.reset();
    bool sent = false;
    std::thread writer([&] { sent = send_all(pair.server, down); });
    const bool received = receive_exactly(pair.server, up.size()) == up;
    writer.join();
    return (received ? 0 : 1) + (sent ? 0 : 2);
  });
  pair.server.reset();
  bool sent = false;
  std::thread writer([&] { sent = send_all(pair.client, up); });
  const std::string got = receive_until_end(pair.client);
  writer.join();
  REQUIRE(sent);
  REQUIRE(got.size() == down.size());
  REQUIRE((got == down));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a child that writes much and exits at once loses nothing", "[shared]") {
  Pair pair = connected_pair();
  const std::string much = pattern(3 << 20, 3);
  Child child([&] {
    pair.client.reset();
    return send_all(pair.server, much) ? 0 : 1;
  });
  pair.server.reset();
  const std::string got = receive_until_end(pair.client);
  REQUIRE(got.size() == much.size());
  REQUIRE((got == much));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: fifty children in a row, one connection each", "[shared]") {
  const Fd l = listener();
  for (int i = 0; i < 50; ++i) {
    Pair pair = connected_pair_via(l);
    Child child([&] {
      pair.client.reset();
      return echo_until_end(pair.server);
    });
    pair.server.reset();
    REQUIRE(send_all(pair.client, "question"));
    ::shutdown(pair.client, SHUT_WR);
    REQUIRE(receive_until_end(pair.client) == "question");
    REQUIRE(child.wait() == 0);
  }
}

TEST_CASE("shared: eight children at a time", "[shared]") {
  const Fd l = listener();
  std::vector<Fd> clients;
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 8; ++i) {
    Pair pair = connected_pair_via(l);
    children.push_back(std::make_unique<Child>([&] {
      pair.client.reset();
      clients.clear();
      return echo_until_end(pair.server);
    }));
    clients.push_back(std::move(pair.client));
  }
  for (int round = 0; round < 10; ++round) {
    for (auto& c : clients) REQUIRE(send_all(c, pattern(1000, static_cast<unsigned>(round))));
    for (auto& c : clients)
      REQUIRE((receive_exactly(c, 1000) == pattern(1000, static_cast<unsigned>(round))));
  }
  for (auto& c : clients) ::shutdown(c, SHUT_WR);
  for (auto& c : clients) REQUIRE(ends(c));
  for (auto& c : children) REQUIRE(c->wait() == 0);
}

TEST_CASE("shared: a child of a child serves after both parents have closed it", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) ::_exit(echo_until_end(pair.server));
    pair.server.reset();
    return wait_for_child(grandchild);
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "deep"));
  REQUIRE(receive_exactly(pair.client, 4) == "deep");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a daemon goes on with the connection after the child in between has left", "[shared]") {
  Pair pair = connected_pair();
  REQUIRE(in_child([&] {
            pair.client.reset();
            if (::fork() == 0) {
              ::setsid();
              ::_exit(echo_until_end(pair.server));
            }
            return 0;
          }) == 0);
  pair.server.reset();
  REQUIRE(send_all(pair.client, "daemon"));
  REQUIRE(receive_exactly(pair.client, 6) == "daemon");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
}

TEST_CASE("shared: the child asks who the peer is", "[shared]") {
  Pair pair = connected_pair();
  const Address local = local_of(pair.server), peer = peer_of(pair.server);
  Child child([&] {
    pair.client.reset();
    if (!(local_of(pair.server) == local) || !(peer_of(pair.server) == peer)) return 1;
    if (!send_all(pair.server, "x")) return 2;
    if (!(local_of(pair.server) == local) || !(peer_of(pair.server) == peer)) return 3;
    if (option<int>(pair.server, SOL_SOCKET, SO_TYPE) != SOCK_STREAM) return 4;
    if (option<int>(pair.server, SOL_SOCKET, SO_ERROR) != 0) return 5;
    set_option(pair.server, IPPROTO_TCP, TCP_NODELAY, 1);
    return option<int>(pair.server, IPPROTO_TCP, TCP_NODELAY) == 1 ? 0 : 6;
  });
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "x");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: the child polls and reads without blocking", "[shared]") {
  Pair pair = connected_pair();
  const Gate gate;
  Child child([&] {
    pair.client.reset();
    set_nonblocking(pair.server);
    char b = 0;
    if (::read(pair.server, &b, 1) != -1 || errno != EAGAIN) return 1;
    if (becomes(pair.server, POLLIN, milliseconds(10))) return 2;
    gate.open();
    if (!becomes(pair.server, POLLIN)) return 3;
    int bytes = 0;
    if (::ioctl(pair.server, FIONREAD, &bytes) != 0 || bytes < 1) return 4;
    if (::recv(pair.server, &b, 1, MSG_PEEK) != 1 || b != 'a') return 5;
    if (::read(pair.server, &b, 1) != 1 || b != 'a') return 6;
    return (::fcntl(pair.server, F_GETFL) & O_NONBLOCK) != 0 ? 0 : 7;
  });
  pair.server.reset();
  gate.wait();
  REQUIRE(send_all(pair.client, "a"));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: the child waits with a set of its own", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    const Epoll set;
    set.add(pair.server, EPOLLIN);
    if (set.next(pair.server) != EPOLLIN) return 1;
    if (receive_exactly(pair.server, 4) != "wake") return 2;
    return send_all(pair.server, "up") ? 0 : 3;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "wake"));
  REQUIRE(receive_until_end(pair.client) == "up");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: the parent's set goes on when the child has used the connection", "[shared]") {
  const Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.server, EPOLLIN);
  REQUIRE(in_child([&] { return send_all(pair.server, "x") ? 0 : 1; }) == 0);
  REQUIRE(receive_exactly(pair.client, 1) == "x");
  REQUIRE(send_all(pair.client, "y"));
  REQUIRE(set.next(pair.server) == EPOLLIN);
  REQUIRE(receive_exactly(pair.server, 1) == "y");
}

TEST_CASE("shared: the child uses the set that it inherited", "[shared]") {
  Pair pair = connected_pair();
  const Epoll set;
  set.add(pair.server, EPOLLIN);
  Child child([&] {
    pair.client.reset();
    if (set.next(pair.server) != EPOLLIN) return 1;
    return receive_exactly(pair.server, 4) == "wake" ? 0 : 2;
  });
  REQUIRE(send_all(pair.client, "wake"));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a read that waits in the parent goes on when a child takes part", "[shared]") {
  const Pair pair = connected_pair();
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, 6); });
  std::this_thread::sleep_for(milliseconds(20));
  REQUIRE(in_child([&] { return send_all(pair.server, "hello") ? 0 : 1; }) == 0);
  REQUIRE(receive_exactly(pair.client, 5) == "hello");
  REQUIRE(send_all(pair.client, "parent"));
  reader.join();
  REQUIRE(got == "parent");
}

TEST_CASE("shared: a poll that waits in the parent goes on when a child takes part", "[shared]") {
  const Pair pair = connected_pair();
  bool ready = false;
  std::thread poller([&] { ready = becomes(pair.server, POLLIN); });
  std::this_thread::sleep_for(milliseconds(20));
  REQUIRE(in_child([&] { return send_all(pair.server, "hello") ? 0 : 1; }) == 0);
  REQUIRE(receive_exactly(pair.client, 5) == "hello");
  REQUIRE(send_all(pair.client, "x"));
  poller.join();
  REQUIRE(ready);
}

TEST_CASE("shared: a child sends a file", "[shared]") {
  Pair pair = connected_pair();
  const std::string content = pattern(300'000, 4);
  FILE* file = ::tmpfile();
  REQUIRE(file != nullptr);
  REQUIRE(::fwrite(content.data(), 1, content.size(), file) == content.size());
  REQUIRE(::fflush(file) == 0);
  Child child([&] {
    pair.client.reset();
    off_t offset = 0;
    while (offset < static_cast<off_t>(content.size())) {
      if (::sendfile(pair.server, ::fileno(file), &offset, content.size()) <= 0) return 1;
    }
    return 0;
  });
  pair.server.reset();
  REQUIRE((receive_until_end(pair.client) == content));
  REQUIRE(child.wait() == 0);
  ::fclose(file);
}

TEST_CASE("shared: a child writes to a connection that its peer has closed", "[shared]") {
  Pair pair = connected_pair();
  const Gate gate;
  Child child([&] {
    pair.client.reset();
    if (!send_all(pair.server, "a")) return 1;
    gate.wait();
    for (int i = 0; i < 500; ++i) {  // the reset takes a moment
      if (::send(pair.server, "b", 1, MSG_NOSIGNAL) < 0) return errno == EPIPE || errno == ECONNRESET ? 0 : 2;
      ::usleep(10000);
    }
    return 3;
  });
  pair.server.reset();
  REQUIRE(receive_exactly(pair.client, 1) == "a");
  pair.client.reset();
  gate.open();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a client's connection is used by the child", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.server.reset();
    if (!send_all(pair.client, "from the child")) return 1;
    return receive_exactly(pair.client, 2) == "ok" ? 0 : 2;
  });
  pair.client.reset();
  REQUIRE(receive_exactly(pair.server, 14) == "from the child");
  REQUIRE(send_all(pair.server, "ok"));
  REQUIRE(child.wait() == 0);
  REQUIRE(ends(pair.server));
}

TEST_CASE("shared: a child with both ends talks to itself", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    if (!send_all(pair.client, "ping")) return 1;
    if (receive_exactly(pair.server, 4) != "ping") return 2;
    if (!send_all(pair.server, "pong")) return 3;
    return receive_exactly(pair.client, 4) == "pong" ? 0 : 4;
  });
  pair.client.reset();
  pair.server.reset();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: exec gives a program the connection as its standard streams", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    ::dup2(pair.server, 0);
    ::dup2(pair.server, 1);
    ::execl("/bin/cat", "cat", nullptr);
    return 98;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "meow"));
  REQUIRE(receive_exactly(pair.client, 4) == "meow");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: exec gives a program the connection under another number", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    ::dup2(pair.server, 9);
    ::execl("/bin/sh", "sh", "-c", "read line <&9; echo \"got $line\" >&9", nullptr);
    return 98;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "this\n"));
  REQUIRE(receive_until_end(pair.client) == "got this\n");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: popen and system leave connections alone", "[shared]") {
  Pair pair = connected_pair();
  FILE* out = ::popen("echo hello", "re");
  REQUIRE(out != nullptr);
  char line[32] = {};
  REQUIRE(::fgets(line, sizeof line, out) != nullptr);
  REQUIRE(std::string(line) == "hello\n");
  REQUIRE(::pclose(out) == 0);
  REQUIRE(::system("true") == 0);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
  pair.server.reset();
  REQUIRE(ends(pair.client));
}

TEST_CASE("shared: a connection passed by SCM_RIGHTS works at the receiver", "[shared]") {
  Pair pair = connected_pair();
  int way[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, way) == 0);
  Child child([&] {
    pair.client.reset();
    pair.server.reset();
    char byte = 0;
    iovec v{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr m{};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    if (::recvmsg(way[1], &m, 0) != 1) return 1;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    if (c == nullptr) return 2;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return echo_until_end(fd);
  });
  char byte = 'x';
  iovec v{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  const int passed = pair.server;
  std::memcpy(CMSG_DATA(c), &passed, sizeof passed);
  REQUIRE(::sendmsg(way[0], &m, 0) == 1);
  pair.server.reset();
  REQUIRE(send_all(pair.client, "passed on"));
  REQUIRE(receive_exactly(pair.client, 9) == "passed on");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 0);
  ::close(way[0]);
  ::close(way[1]);
}

TEST_CASE("shared: a parent that ends lets its children go on with the connection", "[shared]") {
  int verdict[2];
  REQUIRE(::pipe2(verdict, O_CLOEXEC) == 0);
  Child parent([&] {
    Pair pair = connected_pair();  // of this process's own stack
    const Gate used;
    if (::fork() == 0) {
      pair.client.reset();
      if (!send_all(pair.server, "used")) return 1;
      used.open();
      ::usleep(100'000);  // the parent is at its end now
      return send_all(pair.server, " and gone on") ? 0 : 2;
    }
    pair.server.reset();
    if (::fork() == 0) {
      const bool good = receive_until_end(pair.client) == "used and gone on";
      return ::write(verdict[1], good ? "y" : "n", 1) == 1 ? 0 : 3;
    }
    used.wait();
    return 0;
  });
  REQUIRE(parent.wait() == 0);
  char answer = 0;
  REQUIRE(::read(verdict[0], &answer, 1) == 1);
  REQUIRE(answer == 'y');
  ::close(verdict[0]);
  ::close(verdict[1]);
}
