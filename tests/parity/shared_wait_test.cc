// One connection in several processes: waiting for it, and many processes.
#include <sys/ioctl.h>

#include <memory>
#include <thread>

#include "tests/parity/child.hh"
#include "tests/parity/epoll.hh"

using namespace parity;

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

TEST_CASE("shared: with many children about, a child has all low numbers for itself", "[shared]") {
  const Fd l = listener();
  std::vector<Fd> clients;
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 40; ++i) {
    Pair pair = connected_pair_via(l);
    children.push_back(std::make_unique<Child>([&] {
      pair.client.reset();
      clients.clear();
      return echo_until_end(pair.server);
    }));
    pair.server.reset();
    REQUIRE(send_all(pair.client, "x"));
    REQUIRE(receive_exactly(pair.client, 1) == "x");
    clients.push_back(std::move(pair.client));
  }
  Pair pair = connected_pair_via(l);
  REQUIRE(in_child([&] {
            for (int n = 3; n < 200; ++n) {
              if (n != pair.server && ::dup2(pair.server, n) != n) return n;
            }
            return send_all(198, "y") ? 0 : 1;
          }) == 0);
  REQUIRE(receive_exactly(pair.client, 1) == "y");
  clients.clear();
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
