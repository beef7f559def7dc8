// One connection in several processes: who reads, writes and closes.
#include <thread>

#include "tests/parity/child.hh"

using namespace parity;

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

TEST_CASE("shared: a child is told of a reset that it waits for", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    if (!send_all(pair.server, "a")) return 1;
    char c = 0;
    if (::read(pair.server, &c, 1) != -1 || errno != ECONNRESET) return 2;
    if (::send(pair.server, "b", 1, MSG_NOSIGNAL) != -1 || errno != EPIPE) return 3;
    return ::read(pair.server, &c, 1) == 0 ? 0 : 4;
  });
  pair.server.reset();
  REQUIRE(receive_exactly(pair.client, 1) == "a");
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
  pair.client.reset();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a child sees a reset with poll and SO_ERROR, and what came before it", "[shared]") {
  Pair pair = connected_pair();
  const Gate gate;
  Child child([&] {
    pair.client.reset();
    if (receive_exactly(pair.server, 1) != "1") return 1;
    if (!send_all(pair.server, "2")) return 2;
    if (!becomes(pair.server, POLLHUP)) return 3;
    const int events = poll_events(pair.server, POLLIN | POLLOUT | POLLRDHUP);
    if ((events & (POLLIN | POLLERR | POLLHUP | POLLRDHUP)) != (POLLIN | POLLERR | POLLHUP | POLLRDHUP)) return 4;
    if (option<int>(pair.server, SOL_SOCKET, SO_ERROR) != ECONNRESET) return 5;
    return option<int>(pair.server, SOL_SOCKET, SO_ERROR) == 0 ? 0 : 6;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "1"));
  REQUIRE(receive_exactly(pair.client, 1) == "2");
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
  pair.client.reset();
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: SO_LINGER of the child makes its close a reset", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    set_option(pair.server, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
    if (receive_exactly(pair.server, 1) != "x") return 1;
    return ::close(pair.server.release());
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "x"));
  char c = 0;
  REQUIRE(error_of(::read(pair.client, &c, 1)) == ECONNRESET);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: TCP_CORK of the child holds back what it writes", "[shared]") {
  Pair pair = connected_pair();
  int way[2];
  REQUIRE(::pipe2(way, O_CLOEXEC) == 0);
  Child child([&] {
    pair.client.reset();
    if (!send_all(pair.server, "free")) return 1;
    set_option(pair.server, IPPROTO_TCP, TCP_CORK, 1);
    const auto sent_at = std::chrono::steady_clock::now();
    if (!send_all(pair.server, "held")) return 2;
    if (::write(way[1], &sent_at, sizeof sent_at) != sizeof sent_at) return 3;
    return receive_until_end(pair.server).empty() ? 0 : 4;
  });
  pair.server.reset();
  REQUIRE(receive_exactly(pair.client, 4) == "free");
  REQUIRE(receive_exactly(pair.client, 4) == "held");
  const auto now = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point sent_at;
  REQUIRE(::read(way[0], &sent_at, sizeof sent_at) == sizeof sent_at);
  REQUIRE(now - sent_at >= milliseconds(150));  // 200 ms, in Linux
  pair.client.reset();
  REQUIRE(child.wait() == 0);
  ::close(way[0]);
  ::close(way[1]);
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
