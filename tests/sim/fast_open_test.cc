// TCP Fast Open (RFC 7413), both sides.
#include <catch2/catch.hpp>

#include "stack/tcp/fast_open.hh"
#include "tests/sim/passive_world.hh"

using namespace mtcp::sim;

namespace {

void both_ways(Options& o) { o.tcp.fast_open = kFastOpenClient | kFastOpenServer; }

struct Server : PassiveWorld {
  explicit Server(std::uint32_t limit = 16) : PassiveWorld(both_ways, {.fast_open_limit = limit}) {}
  std::string cookie() {
    peer.say({.flags = kSyn, .seq = 1, .mss = 1460, .from_port = 3999, .cookie = ""});
    const Seg answer = peer.hear();
    return answer.cookie.value_or("");
  }
  // A SYN with data; returns the answer.
  Seg open(const std::string& cookie, std::uint16_t port, const std::string& data = "request") {
    peer.say({.flags = kSyn, .seq = 1000, .data = data, .mss = 1460, .from_port = port, .cookie = cookie});
    return peer.hear();
  }
};

// A host that connects to a hand-written server, with "request" for the SYN.
struct Client {
  explicit Client(const std::function<void(Options&)>& tune = both_ways) : host(sim.add_host(tune)) {}
  Seg connect(bool no_cookie = false) {
    const std::string data = "request";
    const iovec v{const_cast<char*>(data.data()), data.size()};
    FastOpenStart start{{&v, 1}};
    SocketOptions o;
    o.fast_open_no_cookie = no_cookie;
    auto made = host.worker->connect({IpAddress::any_v4(), 0}, {peer.address, 80}, o, host.clock(), start);
    REQUIRE(made);
    taken = start.taken;
    c = *made;
    sim.run_for(milliseconds(2));
    const Seg syn = peer.hear();
    peer.remote_port = syn.from_port;
    return syn;
  }
  void answer(const Seg& syn, std::uint32_t acked, std::optional<std::string> cookie) {
    peer.say({.flags = kSyn | kAck, .seq = 500, .ack = syn.seq + 1 + acked, .mss = 1400, .cookie = std::move(cookie)});
  }
  [[nodiscard]] FastOpenFailure failure() const { return host.worker->info(*c).fast_open_failure; }
  // The connection is gone, and what was sent for it.
  void end(Duration then = milliseconds(2)) {
    host.worker->abort(*c, host.clock());
    sim.run_for(then);
    peer.forget();
  }
  // A first connection, which brings a cookie.
  void learn() {
    const Seg syn = connect();
    answer(syn, 0, "8 bytes.");
    end();
  }
  Sim sim{22};
  Host& host;
  RawPeer peer{sim, host, 80, 0};
  Connection* c = nullptr;
  std::size_t taken = 0;
};

}  // namespace

TEST_CASE("rfc7413 4.1.2: a server gives a cookie to who asks, and takes no data without", "[fast_open]") {
  Server w;
  const std::string cookie = w.cookie();
  CHECK(cookie.size() == 8);
  CHECK(w.cookie() == cookie);  // it is the client's address, keyed
  CHECK(w.listener.accept_count == 0);
  const Seg a = w.open("", 5000);
  CHECK(a.ack == 1001);  // the SYN alone
  CHECK(a.cookie == cookie);
}

TEST_CASE("rfc7413 4.2.2: data with a good cookie is the application's before the handshake is over", "[fast_open]") {
  Server w;
  w.host.accepting = false;
  const Seg a = w.open(w.cookie(), 5000);
  CHECK(a.is(kSyn | kAck));
  CHECK(a.ack == 1001 + 7);
  CHECK_FALSE(a.cookie);
  REQUIRE(w.listener.accept_count == 1);
  Connection& c = *w.host.worker->accept(w.listener);
  CHECK(w.host.worker->info(c).state == State::syn_received);
  CHECK(w.host.worker->info(c).syn_data_acked);
  CHECK(w.host.worker->readable_bytes(c) == 7);
  // And it answers.
  const std::string reply = "reply";
  const iovec v{const_cast<char*>(reply.data()), reply.size()};
  REQUIRE(w.host.worker->send(c, {&v, 1}, false, w.host.clock()));
  w.sim.run_for(milliseconds(2));
  const Seg data = w.peer.hear();
  CHECK(data.data == "reply");
  CHECK(data.seq == a.seq + 1);
  w.peer.say({.flags = kAck, .seq = 1008, .ack = a.seq + 1 + 5, .from_port = 5000});
  CHECK(w.host.worker->info(c).state == State::established);
  CHECK(w.host.worker->info(c).bytes_acked == 5);
  CHECK(w.host.worker->info(c).flight == 0);
}

TEST_CASE("rfc7413 4.2.2: a wrong cookie opens in the usual way, and the answer has the right one", "[fast_open]") {
  Server w;
  const std::string cookie = w.cookie();
  for (const std::string& wrong : {std::string("notright"), cookie.substr(0, 6), cookie + "12"}) {
    const Seg a = w.open(wrong, static_cast<std::uint16_t>(5000 + wrong.size()));
    CHECK(a.ack == 1001);
    CHECK(a.cookie == cookie);
  }
  CHECK(w.listener.accept_count == 0);
}

TEST_CASE("rfc7413 4.2.2: without TCP_FASTOPEN, or where it is not configured, the option is ignored", "[fast_open]") {
  Server none(0);
  CHECK(none.cookie().empty());
  PassiveWorld off({}, {.fast_open_limit = 16});
  off.peer.say({.flags = kSyn, .seq = 1, .mss = 1460, .cookie = ""});
  CHECK_FALSE(off.peer.hear().cookie);
}

TEST_CASE("rfc7413 4.2: the answer to a Fast Open SYN is sent again until it is acknowledged", "[fast_open]") {
  Server w;
  const Seg a = w.open(w.cookie(), 5000);
  w.peer.forget();
  w.sim.run_for(milliseconds(1100));
  Seg again;
  do again = w.peer.hear();
  while (again.flags != 0 && again.to_port != 5000);
  CHECK(again.is(kSyn | kAck));
  CHECK(again.seq == a.seq);
  CHECK(again.ack == a.ack);
  // Nor does the client's own SYN draw anything else.
  w.peer.forget();
  w.peer.say({.flags = kSyn, .seq = 1000, .mss = 1460, .from_port = 5000});
  CHECK(w.peer.hear().is(kSyn | kAck));
  w.sim.run_for(seconds(130));
  CHECK(w.host.worker->connections() == 0);
}

TEST_CASE("rfc7413 5.1: so many connections whose handshake is not over, and resets do not make room", "[fast_open]") {
  Server w(2);
  const std::string cookie = w.cookie();
  const Seg first = w.open(cookie, 5001);
  CHECK(first.ack == 1008);
  CHECK(w.open(cookie, 5002).ack == 1008);
  CHECK(w.open(cookie, 5003).ack == 1001);
  w.peer.say({.flags = kRst, .seq = 1008, .from_port = 5001});
  CHECK(w.open(cookie, 5004).ack == 1001);
  w.peer.forget();
  w.peer.say({.flags = kAck, .seq = 1008, .ack = first.seq + 1, .from_port = 5002});
  w.peer.forget();
  w.sim.run_for(seconds(61));
  w.peer.forget();
  CHECK(w.open(cookie, 5005).ack == 1008);
}

TEST_CASE("rfc7413 4.2.1: a client asks for a cookie first, and its SYN has data once it has one", "[fast_open]") {
  Client w;
  const Seg first = w.connect();
  CHECK(first.is(kSyn));
  CHECK(first.cookie == "");
  CHECK(first.data.empty());
  CHECK(w.taken == 0);
  w.answer(first, 0, "8 bytes.");
  CHECK(w.failure() == FastOpenFailure::no_cookie);
  w.end();

  const Seg second = w.connect();
  CHECK(second.cookie == "8 bytes.");
  CHECK(second.data == "request");
  CHECK(w.taken == 7);
  w.answer(second, 7, std::nullopt);
  const Seg ack = w.peer.hear();
  CHECK(ack.is(kAck));
  CHECK(ack.data.empty());
  CHECK(ack.seq == second.seq + 8);
  const auto info = w.host.worker->info(*w.c);
  CHECK(info.state == State::established);
  CHECK(info.syn_data_acked);
  CHECK(info.fast_open_failure == FastOpenFailure::none);
  CHECK(info.bytes_acked == 7);
  CHECK(info.snd_wnd == 65535);  // a SYN's window is not scaled
}

TEST_CASE("rfc7413 4.2.1: what the SYN-ACK does not acknowledge is sent as any data", "[fast_open]") {
  for (const std::uint32_t acked : {0U, 3U}) {
    CAPTURE(acked);
    Client w;
    w.learn();
    const Seg syn = w.connect();
    w.answer(syn, acked, std::nullopt);
    CHECK(w.failure() == FastOpenFailure::not_acknowledged);
    const Seg again = w.peer.hear();
    CHECK(again.is(kAck));
    CHECK(again.seq == syn.seq + 1 + acked);
    CHECK(again.data == std::string("request").substr(acked));
    w.peer.say({.flags = kAck, .seq = 501, .ack = syn.seq + 8});
    CHECK(w.host.worker->info(*w.c).bytes_acked == 7);
  }
}

TEST_CASE("rfc7413 4.2.1: a SYN that is lost goes again without data, and the data follows", "[fast_open]") {
  Client w;
  w.learn();
  const Seg syn = w.connect();
  w.sim.run_for(milliseconds(1100));
  const Seg plain = w.peer.hear();
  CHECK(plain.is(kSyn));
  CHECK(plain.data.empty());
  CHECK_FALSE(plain.cookie);
  CHECK(w.failure() == FastOpenFailure::none);
  w.answer(syn, 0, std::nullopt);
  CHECK(w.peer.hear().data == "request");
  CHECK(w.failure() == FastOpenFailure::syn_retransmitted);
}

TEST_CASE("rfc7413 4.2.1: a SYN that goes again for want of an answer is no failure where the answer has the data", "[fast_open]") {
  Client w;
  w.learn();
  const Seg syn = w.connect();
  w.sim.run_for(milliseconds(1100));
  w.answer(syn, 7, std::nullopt);
  CHECK(w.host.worker->info(*w.c).syn_data_acked);
  CHECK(w.failure() == FastOpenFailure::none);
}

TEST_CASE("rfc7413 4.1.3.1: a path that drops such SYNs is left alone for a while", "[fast_open]") {
  Client w;
  w.learn();
  for (int i = 0; i < 2; ++i) {
    const Seg syn = w.connect();
    CHECK(syn.data == "request");
    w.sim.run_for(milliseconds(1100));
    w.answer(syn, 0, std::nullopt);
    w.end();
  }
  Seg syn = w.connect();
  CHECK(syn.data.empty());
  CHECK_FALSE(syn.cookie);
  CHECK(w.failure() == FastOpenFailure::none);  // there is a cookie
  w.end(seconds(241));
  syn = w.connect();
  CHECK(syn.data == "request");
}

TEST_CASE("rfc6994: a server answers the experimental option with the experimental option, and takes its cookie", "[fast_open]") {
  Server w;
  w.peer.say({.flags = kSyn, .seq = 1, .mss = 1460, .from_port = 3999, .cookie = "", .experimental = true});
  const Seg answer = w.peer.hear();
  CHECK(answer.experimental);
  REQUIRE(answer.cookie.has_value());
  const std::string cookie = *answer.cookie;
  CHECK(cookie.size() == 8);
  CHECK(cookie == w.cookie());  // the same in the option that has a number
  w.peer.forget();
  w.peer.say({.flags = kSyn, .seq = 1000, .data = "request", .mss = 1460, .from_port = 4000, .cookie = cookie, .experimental = true});
  CHECK(w.peer.hear().ack == 1008);
  w.peer.forget();
  w.peer.say({.flags = kSyn, .seq = 1000, .data = "request", .mss = 1460, .from_port = 4001, .cookie = "7 wrong.", .experimental = true});
  const Seg refused = w.peer.hear();
  CHECK(refused.ack == 1001);
  CHECK(refused.experimental);
  CHECK(refused.cookie == cookie);
}

TEST_CASE("rfc6994: a client whose request was in vain asks by the experimental option, and then by the other again", "[fast_open]") {
  Client w;
  const Seg first = w.connect();
  CHECK_FALSE(first.experimental);
  w.answer(first, 0, std::nullopt);
  w.end();
  const Seg second = w.connect();
  CHECK(second.cookie == "");
  CHECK(second.experimental);
  SECTION("the answer has a cookie") {
    w.peer.say({.flags = kSyn | kAck, .seq = 500, .ack = second.seq + 1, .mss = 1400, .cookie = "8 bytes.", .experimental = true});
    w.end();
    const Seg third = w.connect();
    CHECK(third.cookie == "8 bytes.");
    CHECK(third.experimental);
    CHECK(third.data == "request");
  }
  SECTION("the answer has none") {
    w.answer(second, 0, std::nullopt);
    w.end();
    for (int i = 0; i < 2; ++i) {
      const Seg next = w.connect();
      CHECK(next.cookie == "");
      CHECK_FALSE(next.experimental);
      w.answer(next, 0, std::nullopt);
      w.end();
    }
  }
}

TEST_CASE("rfc7413: TCP_FASTOPEN_NO_COOKIE: data goes with the SYN, and no option", "[fast_open]") {
  Client w;
  const Seg syn = w.connect(true);
  CHECK(syn.data == "request");
  CHECK_FALSE(syn.cookie);
  CHECK(w.failure() == FastOpenFailure::none);
}

TEST_CASE("rfc7413: two stacks: the second request is there half a round trip after its connect", "[fast_open]") {
  Sim sim(23);
  Host& server = sim.add_host(both_ways);
  Host& client = sim.add_host(both_ways);
  server.listen(80, {.fast_open_limit = 16});
  sim.wire.options.delay = milliseconds(10);
  for (int i = 0; i < 2; ++i) {
    const std::string data(100, 'x');
    const iovec v{const_cast<char*>(data.data()), data.size()};
    FastOpenStart start{{&v, 1}};
    auto made = client.worker->connect({IpAddress::any_v4(), 0}, {server.address, 80}, {}, client.clock(), start);
    REQUIRE(made);
    CHECK(start.taken == (i == 0 ? 0 : 100));
    const std::size_t before = server.accepted.size();
    if (i == 1) {
      sim.run_for(milliseconds(15));
      REQUIRE(server.accepted.size() == before + 1);
      CHECK(server.accepted.back()->received == 100);
    } else {
      sim.run_for(milliseconds(100));
    }
  }
}
