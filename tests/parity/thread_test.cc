// Several threads and the same sockets.
#include <sys/epoll.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

TEST_CASE("threads: one reads and one writes the same connection", "[threads]") {
  const Pair pair = connected_pair();
  const std::string data = pattern(1 << 20, 21);
  std::thread echo([&] {
    char buffer[16384];
    for (ssize_t n = 0; (n = ::recv(pair.server, buffer, sizeof buffer, 0)) > 0;) {
      if (!send_all(pair.server, {buffer, static_cast<std::size_t>(n)})) break;
    }
    ::shutdown(pair.server, SHUT_WR);
  });
  std::thread writer([&] {
    send_all(pair.client, data);
    ::shutdown(pair.client, SHUT_WR);
  });
  const std::string got = receive_until_end(pair.client);
  writer.join();
  echo.join();
  REQUIRE((got == data));
}

TEST_CASE("threads: what one has connected, filled and closed, others accept with its name, its bytes and its end", "[threads]") {
  constexpr std::size_t kConnections = 60;
  const Fd l = listener(static_cast<int>(kConnections));
  std::atomic<std::size_t> accepted{0}, wrong{0}, named{0};
  auto acceptor = [&] {
    while (accepted++ < kConnections) {
      const Fd server(::accept(l, nullptr, nullptr));
      if (server < 0) return;
      Address name;
      name.size = sizeof name.storage;
      if (::getpeername(server, name.get(), &name.size) == 0) ++named;
      if (receive_until_end(server) != std::to_string(name.port())) ++wrong;
    }
  };
  std::thread a(acceptor);
  std::thread b(acceptor);
  std::thread connector([&] {
    const Address to = local_of(l);
    for (std::size_t i = 0; i < kConnections; ++i) {
      const Fd client = stream_socket();
      if (::connect(client, to.get(), to.size) != 0) return;
      send_all(client, std::to_string(local_of(client).port()));
    }
  });
  connector.join();
  a.join();
  b.join();
  REQUIRE(named == kConnections);
  REQUIRE(wrong == 0);
}

TEST_CASE("threads: two read one connection, and every byte goes to one of them", "[threads]") {
  const Pair pair = connected_pair();
  std::atomic<std::size_t> sum{0};
  auto reader = [&] {
    char buffer[1000];
    for (ssize_t n = 0; (n = ::recv(pair.server, buffer, sizeof buffer, 0)) > 0;) {
      sum += static_cast<std::size_t>(n);
    }
  };
  std::thread a(reader);
  std::thread b(reader);
  REQUIRE(send_all(pair.client, pattern(500000)));
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  a.join();
  b.join();
  REQUIRE(sum == 500000);
}

TEST_CASE("threads: two write one connection, and messages stay whole", "[threads]") {
  const Pair pair = connected_pair();
  auto writer = [&](char c) {
    const std::string message(64, c);
    for (int i = 0; i < 500; ++i) {
      if (!send_all(pair.client, message)) return;
    }
  };
  std::thread a(writer, 'a');
  std::thread b(writer, 'b');
  const std::string got = receive_exactly(pair.server, 64 * 1000);
  a.join();
  b.join();
  REQUIRE(got.size() == 64 * 1000);
  for (std::size_t i = 0; i < got.size(); i += 64) {
    REQUIRE(std::count(got.begin() + static_cast<long>(i), got.begin() + static_cast<long>(i) + 64, got[i]) ==
            64);
  }
}

TEST_CASE("threads: several accept from one listener, each connection once", "[threads]") {
  const Fd l = listener(128);
  const Address to = local_of(l);
  std::atomic<int> accepted{0};
  auto acceptor = [&] {
    for (int fd = 0; (fd = ::accept(l, nullptr, nullptr)) >= 0; ++accepted) ::close(fd);
  };
  std::thread a(acceptor);
  std::thread b(acceptor);
  std::thread c(acceptor);
  for (int i = 0; i < 60; ++i) {
    const Fd client = connected_to(to);
    REQUIRE(receive_until_end(client).empty());
  }
  REQUIRE(::shutdown(l, SHUT_RD) == 0);
  a.join();
  b.join();
  c.join();
  REQUIRE(accepted == 60);
}

TEST_CASE("threads: a connection made in one thread is used and closed in another", "[threads]") {
  const Fd l = listener();
  for (int i = 0; i < 20; ++i) {
    Pair pair;
    std::thread maker([&] { pair.client = Fd(::socket(AF_INET, SOCK_STREAM, 0)); });
    maker.join();
    const Address to = local_of(l);
    REQUIRE(::connect(pair.client, to.get(), to.size) == 0);
    pair.server = accept_from(l);
    std::thread user([&] {
      send_all(pair.client, "from there");
      pair.client.reset();
    });
    user.join();
    REQUIRE(receive_until_end(pair.server) == "from there");
  }
}

TEST_CASE("threads: a close in another thread lets a poll go on and the number be used again", "[threads]") {
  const Pair keep = connected_pair();
  Pair pair = connected_pair();
  std::thread closer([&] {
    std::this_thread::sleep_for(milliseconds(30));
    pair.client.reset();
    send_all(keep.server, "x");
  });
  REQUIRE(becomes(keep.client, POLLIN));
  closer.join();
  REQUIRE(receive_until_end(pair.server).empty());
}

TEST_CASE("threads: each with a set of its own serves its own connections", "[threads]") {
  std::atomic<int> good{0};
  auto worker = [&] {
    const Fd l(::socket(AF_INET, SOCK_STREAM, 0));
    Address any = server_address();
    if (::bind(l, any.get(), any.size) != 0 || ::listen(l, 64) != 0) return;
    Address to = any;
    to.size = sizeof to.storage;
    ::getsockname(l, to.get(), &to.size);
    const Fd set(::epoll_create1(EPOLL_CLOEXEC));
    for (int i = 0; i < 50; ++i) {
      const Fd client(::socket(AF_INET, SOCK_STREAM, 0));
      if (::connect(client, to.get(), to.size) != 0) return;
      const Fd server(::accept(l, nullptr, nullptr));
      epoll_event e{};
      e.events = EPOLLIN;
      ::epoll_ctl(set, EPOLL_CTL_ADD, server, &e);
      if (!send_all(client, "hello") || ::epoll_wait(set, &e, 1, 3000) != 1) return;
      if (receive_exactly(server, 5) == "hello") ++good;
    }
  };
  std::thread a(worker);
  std::thread b(worker);
  std::thread c(worker);
  std::thread d(worker);
  a.join();
  b.join();
  c.join();
  d.join();
  REQUIRE(good == 200);
}

TEST_CASE("threads: one set served by two threads with EPOLLONESHOT loses nothing", "[threads]") {
  const Fd l = listener(64);
  std::vector<Pair> pairs;
  const Fd set(::epoll_create1(EPOLL_CLOEXEC));
  for (int i = 0; i < 20; ++i) {
    pairs.push_back(connected_pair_via(l));
    epoll_event e{};
    e.events = EPOLLIN | EPOLLONESHOT;
    e.data.fd = pairs.back().server;
    REQUIRE(::epoll_ctl(set, EPOLL_CTL_ADD, pairs.back().server, &e) == 0);
  }
  std::atomic<int> answered{0};
  auto serve = [&] {
    const Stopwatch watch;
    while (answered < 200 && watch.elapsed() < milliseconds(8000)) {
      epoll_event e{};
      if (::epoll_wait(set, &e, 1, 20) != 1) continue;
      char b[4];
      if (::recv(e.data.fd, b, 4, MSG_WAITALL) != 4 || !send_all(e.data.fd, {b, 4})) continue;
      ++answered;
      e.events = EPOLLIN | EPOLLONESHOT;
      ::epoll_ctl(set, EPOLL_CTL_MOD, e.data.fd, &e);
    }
  };
  std::thread a(serve);
  std::thread b(serve);
  bool right = true;
  for (int round = 0; round < 10; ++round) {
    for (const Pair& pair : pairs) right = right && send_all(pair.client, "ping");
    for (const Pair& pair : pairs) right = right && receive_exactly(pair.client, 4) == "ping";
  }
  a.join();
  b.join();
  REQUIRE(right);
  REQUIRE(answered == 200);
}

TEST_CASE("threads: a blocking connect, accept and transfer between two threads, many times", "[threads]") {
  const Fd l = listener(16);
  const Address to = local_of(l);
  std::atomic<bool> good{true};
  std::thread server([&] {
    for (int i = 0; i < 300; ++i) {
      const Fd fd(::accept(l, nullptr, nullptr));
      if (fd < 0 || receive_exactly(fd, 3) != "req" || !send_all(fd, "answer")) good = false;
    }
  });
  for (int i = 0; i < 300; ++i) {
    const Fd client = connected_to(to);
    REQUIRE(send_all(client, "req"));
    REQUIRE(receive_until_end(client) == "answer");
  }
  server.join();
  REQUIRE(good);
}
