// What a read tells the peer, of a program that does something else than wait for its sockets afterwards.
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <catch2/catch.hpp>

#include "tests/intercept/bench.hh"
#include "tests/intercept/wired_device.hh"

using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

Options on_wire(const char* end, std::uint8_t host) {
  Options o = Bench::default_options();
  o.device.port = end;
  o.stack.interface.addresses = {{mtcp::stack::IpAddress::v4(10, 77, 0, host), 120}};
  return o;
}

// A program at each end of a wire, and nobody who does anything for them but their own calls: no background thread.
struct World {
  // Both take their turns until `done`.
  template <class Done>
  bool run_until(const Done& done) {
    for (int i = 0; i < 1000; ++i) {
      if (done()) return true;
      server.settle();
      client.settle();
    }
    return done();
  }
  // Fills the receiver's window and then the sender's buffer.
  void fill() {
    const std::string block(16384, 'x');
    for (int idle = 0; idle < 3; ++idle) {
      while (client.send(to, block, MSG_DONTWAIT) > 0) idle = 0;
      client.settle();
      server.settle();
    }
  }
  int unsent() {
    int n = -1;
    return client->ioctl(to, SIOCOUTQNSD, &n) == 0 ? n : -1;
  }

  TestWire wire{1};
  Bench server{on_wire("wire0", 1), &TestWire::open}, client{on_wire("wire1", 9), &TestWire::open};
  int to = -1, from = -1;
};

}  // namespace

TEST_CASE("a read that opens the window tells the peer at once, whatever the program waits for afterwards") {
  World w;
  const int listener = w.server.listener(SOCK_NONBLOCK);
  REQUIRE(listener >= 0);
  REQUIRE(w.server.set(listener, SOL_SOCKET, SO_RCVBUF, 8192) == 0);
  CHECK(w.server->accept4(listener, nullptr, nullptr, 0) == -EAGAIN);  // it is open now
  w.to = w.client.tcp(SOCK_NONBLOCK);
  CHECK(w.client.connect(w.to, kOwn, w.server.port) == -EINPROGRESS);
  REQUIRE(w.run_until([&] { return (w.from = w.server->accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0; }));
  w.fill();
  const int waiting = w.unsent();
  REQUIRE(waiting > 0);
  auto& sleeping = w.server->first().instance->sleeping;
  ++sleeping;  // the background thread, which only packets and timers wake
  CHECK(w.server.recv(w.from).size() > 4000);
  --sleeping;
  // The server does nothing any more.
  w.client.settle();
  CHECK(w.unsent() < waiting);
}
