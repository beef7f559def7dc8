// A connection that is in use goes from one stack of a program to another that expects it.
#include "tests/sim/shared_world.hh"

using namespace mtcp::sim;
using World = SharedWorld;

namespace {

// Two processes, of which only the first listens, and a connection to it over which `bytes` have come and gone.
struct InUse : World {
  explicit InUse(std::uint64_t bytes) : World(2), bytes(bytes) {
    REQUIRE(sim.run_until([this] { return peer.received == this->bytes; }));
    sim.run_for(milliseconds(100));
    REQUIRE(a.accepted.size() == 1);
  }
  [[nodiscard]] Socket& server() { return *a.accepted.front(); }
  bool pass() {
    if (!a.worker->pass(*server().connection, b.steering->number(), sim.now)) return false;
    server().connection = nullptr;
    return true;
  }
  // What the second process has got, as an echo that goes on where the first one was. Null: nothing has come.
  Socket* arrived() {
    sim.run_for(milliseconds(1));
    Connection* c = b.worker->take_expected(server().key);
    if (c == nullptr) return nullptr;
    b.sockets.push_back(std::make_unique<Socket>(b, *c));
    Socket& s = *b.sockets.back();
    s.connected = true;
    s.received = s.sent = s.to_send = server().received;
    echo(s);
    s.kick();
    return &s;
  }

  std::uint64_t bytes;
  Host& a = process();
  Host& b = process(0);
  Socket& peer = connect(bytes);
};

}  // namespace

TEST_CASE("a connection in use goes to a stack that expects it, with what was not read yet, and on from there", "[passed]") {
  InUse w(20'000);
  INFO(w.sim.label());
  w.server().reading = false;
  w.peer.send(5000);
  w.sim.run_for(milliseconds(10));
  w.b.worker->expect(w.server().key);
  REQUIRE(w.pass());
  w.peer.send(3000);  // on its way when the stack that has it changes
  Socket* s = w.arrived();
  REQUIRE(s != nullptr);
  w.peer.send(100'000);
  w.peer.shutdown_when_sent = true;
  w.peer.kick();
  REQUIRE(w.sim.run_until([&] { return w.peer.eof; }));
  CHECK(World::good(w.peer, 128'000));
  CHECK(World::good(*s, 128'000));
  CHECK(w.a.count(Counter::connections_handed_over) == 1);
  CHECK(w.b.count(Counter::connections_adopted) == 1);
  CHECK(w.a.count(Counter::resets_sent) + w.b.count(Counter::resets_sent) == 0);
}

TEST_CASE("a connection whose peer has sent all that it will send goes along with that, and with its end", "[passed]") {
  InUse w(1000);
  INFO(w.sim.label());
  w.server().reading = false;
  w.peer.send(5000);
  w.peer.shutdown_when_sent = true;
  w.peer.kick();
  w.sim.run_for(milliseconds(100));
  w.b.worker->expect(w.server().key);
  REQUIRE(w.pass());
  Socket* s = w.arrived();
  REQUIRE(s != nullptr);
  REQUIRE(w.sim.run_until([&] { return w.peer.eof; }));
  CHECK(World::good(w.peer, 6000));
  CHECK(World::good(*s, 6000));
  CHECK(w.a.count(Counter::resets_sent) + w.b.count(Counter::resets_sent) == 0);
}

TEST_CASE("a connection with something on its way to the peer stays, and goes once the peer has it", "[passed]") {
  InUse w(1000);
  INFO(w.sim.label());
  w.b.worker->expect(w.server().key);
  w.server().echo = false;
  w.server().send(1);
  CHECK_FALSE(w.pass());
  CHECK_FALSE(w.a.worker->pass(*w.server().connection, 15, w.sim.now));
  w.sim.run_for(milliseconds(100));
  CHECK_FALSE(w.a.worker->pass(*w.server().connection, 15, w.sim.now));  // nobody is there
  REQUIRE(w.pass());
  CHECK(w.arrived() != nullptr);
}

TEST_CASE("one that is not expected is reset", "[passed]") {
  InUse w(1000);
  INFO(w.sim.label());
  REQUIRE(w.pass());
  CHECK(w.arrived() == nullptr);
  w.sim.run_for(milliseconds(10));
  CHECK(w.peer.error == Errc::connection_reset);
  CHECK(w.b.count(Counter::adoptions_refused) == 1);
}

TEST_CASE("one that is expected no longer is reset, whether it has come or comes later", "[passed]") {
  const bool has_come = GENERATE(false, true);
  InUse w(1000);
  INFO(w.sim.label());
  w.b.worker->expect(w.server().key);
  if (has_come) {
    REQUIRE(w.pass());
    w.sim.run_for(milliseconds(1));
    CHECK(w.b.worker->expects(w.server().key));
  }
  w.b.worker->stop_expecting(w.server().key, w.sim.now);
  CHECK_FALSE(w.b.worker->expects(w.server().key));
  if (!has_come) REQUIRE(w.pass());
  CHECK(w.arrived() == nullptr);
  w.sim.run_for(milliseconds(10));
  CHECK(w.peer.error == Errc::connection_reset);
  CHECK(w.b.worker->connections() == 0);
}

TEST_CASE("one that the peer resets before it is taken is there, with the error", "[passed]") {
  InUse w(1000);
  INFO(w.sim.label());
  w.b.worker->expect(w.server().key);
  REQUIRE(w.pass());
  w.sim.run_for(milliseconds(1));
  w.peer.abort();
  w.sim.run_for(milliseconds(10));
  Connection* c = w.b.worker->take_expected(w.server().key);
  REQUIRE(c != nullptr);
  CHECK(w.b.worker->readiness(*c).error);
  w.b.worker->close(*c, w.sim.now);
  CHECK(w.b.worker->connections() == 0);
}

TEST_CASE("one whose former stack dies right after it has passed it goes on", "[passed]") {
  InUse w(1000);
  INFO(w.sim.label());
  w.b.worker->expect(w.server().key);
  REQUIRE(w.pass());
  w.a.kill();
  Socket* s = w.arrived();
  REQUIRE(s != nullptr);
  w.peer.send(5000);
  w.peer.shutdown_when_sent = true;
  w.peer.kick();
  REQUIRE(w.sim.run_until([&] { return w.peer.eof; }));
  CHECK(World::good(w.peer, 6000));
  CHECK(w.b.count(Counter::resets_sent) == 0);
}

TEST_CASE("one whose new stack dies before it has taken it is reset, and is not accepted anew", "[passed]") {
  InUse w(1000);
  INFO(w.sim.label());
  w.b.worker->expect(w.server().key);
  w.b.stalled_until = w.sim.now + seconds(1);
  REQUIRE(w.pass());
  w.b.kill();
  w.sim.run_for(seconds(2));
  CHECK(w.peer.error == Errc::connection_reset);
  CHECK(w.a.accepted.size() == 1);
}

TEST_CASE("rfc6191: a connection that opens anew where one rests on a stack without the listener goes to one that has it, at once", "[passed]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Host& b = w.process(81);
  Socket& first = *w.connect_to(b, 1, 100).front();  // the packets come to that stack first
  REQUIRE(w.sim.run_until([&] { return first.received == 100; }));
  w.sim.run_for(milliseconds(100));
  Socket& server = *a.accepted.back();
  const FlowKey key = server.key;
  b.worker->expect(key);
  REQUIRE(a.worker->pass(*server.connection, b.steering->number(), w.sim.now));
  server.connection = nullptr;
  w.sim.run_for(milliseconds(1));
  Connection* c = b.worker->take_expected(key);
  REQUIRE(c != nullptr);
  b.worker->close(*c, w.sim.now);
  REQUIRE(w.sim.run_until([&] { return first.eof; }));
  first.shutdown_when_sent = true;
  first.kick();
  w.sim.run_for(milliseconds(100));
  REQUIRE(b.worker->time_waits() == 1);
  w.sim.run_for(seconds(2));
  Socket* second = w.client.try_connect({Sim::kShared, 80}, {}, key.remote_port);
  REQUIRE(second != nullptr);
  second->to_send = 100;
  w.sim.run_for(milliseconds(300));
  CHECK(World::good(*second, 100));
  CHECK(b.count(Counter::time_wait_recycled) == 1);
}

TEST_CASE("rfc6191: a connection that opens anew where one rests on a stack whose listener was left goes to the successor, at once", "[passed]") {
  World w(2);
  INFO(w.sim.label());
  Host& a = w.process();
  Socket& first = w.connect(100);
  REQUIRE(w.sim.run_until([&] { return first.received == 100; }));
  const std::uint16_t port = first.key.local_port;
  a.accepted.back()->close();
  REQUIRE(w.sim.run_until([&] { return first.eof; }));
  first.shutdown_when_sent = true;
  first.kick();
  w.sim.run_for(milliseconds(100));
  REQUIRE(a.worker->time_waits() == 1);
  Host& b = w.process();  // nginx's new worker
  a.leave(*a.listeners.front());
  w.sim.run_for(seconds(2));
  REQUIRE(a.worker->time_waits() == 1);
  Socket* second = w.client.try_connect({Sim::kShared, 80}, {}, port);
  REQUIRE(second != nullptr);
  second->to_send = 100;
  w.sim.run_for(milliseconds(300));
  CHECK(World::good(*second, 100));
  CHECK(b.accepted.size() == 1);
  CHECK(a.count(Counter::time_wait_recycled) == 1);
}
