// Passive opens and their limits, SYN cookies: what happens before there is a connection.
#include <catch2/catch.hpp>
#include <set>

#include "tests/sim/passive_world.hh"

using namespace mtcp::sim;
using World = PassiveWorld;

TEST_CASE("rfc9293 3.10.7.2: a SYN to a listener is answered with our options", "[passive]") {
  World w;
  const Seg a = w.knock(5000, 77, true);
  CHECK(a.is(kSyn | kAck));
  CHECK(a.ack == 78);
  CHECK(a.mss == 1460);
  CHECK(a.window_scale == 10);  // tcp_rmem's maximum fits into 16 bits
  CHECK(a.timestamps);
  CHECK(a.ts_ecr == 12345);
  CHECK(a.sack_permitted);
  CHECK(w.listener.syn_count == 1);
  CHECK(w.host.worker->connections() == 0);  // no slot before the handshake is complete
}

TEST_CASE("rfc7323: options that the peer's SYN does not have are not in our answer", "[passive]") {
  World w;
  const Seg a = w.knock(5000);
  CHECK(a.is(kSyn | kAck));
  CHECK(a.window_scale == -1);
  CHECK_FALSE(a.timestamps);
  CHECK_FALSE(a.sack_permitted);
}

TEST_CASE("rfc9293 3.10.7.1: no listener: RST with the right numbers", "[passive]") {
  World w;
  w.peer.say({.flags = kSyn, .seq = 10, .to_port = 81});
  Seg r = w.peer.hear();
  CHECK(r.is(kRst | kAck));
  CHECK(r.seq == 0);
  CHECK(r.ack == 11);
  w.peer.say({.flags = kAck, .seq = 10, .ack = 999, .data = "x", .to_port = 81});
  r = w.peer.hear();
  CHECK(r.is(kRst));
  CHECK(r.seq == 999);
  w.peer.say({.flags = kRst, .seq = 10, .to_port = 81});
  CHECK(w.peer.silent());
  CHECK(w.host.count(Counter::no_socket) == 3);
}

TEST_CASE("rfc9293 3.10.7.2: LISTEN answers an ACK with RST and ignores RST, FIN and nothing", "[passive]") {
  World w;
  w.peer.say({.flags = kAck, .seq = 1, .ack = 5});
  CHECK(w.peer.hear().is(kRst));
  w.peer.say({.flags = kRst, .seq = 1});
  w.peer.say({.flags = kFin, .seq = 1});
  w.peer.say({.flags = 0, .seq = 1});
  w.peer.say({.flags = kSyn | kFin, .seq = 1});
  CHECK(w.peer.silent());
  CHECK(w.listener.syn_count == 0);
}

TEST_CASE("the SYN-ACK is sent again after 1, 2, 4 ... seconds and then given up", "[passive]") {
  World w([](Options& o) { o.tcp.synack_retries = 3; });
  CHECK(w.knock(5000).is(kSyn | kAck));
  w.sim.run_for(milliseconds(990));
  CHECK(w.peer.silent());
  w.sim.run_for(milliseconds(20));
  CHECK(w.peer.waiting() == 1);
  w.sim.run_for(seconds(2));
  CHECK(w.peer.waiting() == 2);
  w.sim.run_for(seconds(4));
  CHECK(w.peer.waiting() == 3);
  CHECK(w.listener.syn_count == 1);
  w.sim.run_for(seconds(9));
  CHECK(w.peer.waiting() == 3);
  CHECK(w.listener.syn_count == 0);
  CHECK(w.host.count(Counter::half_open_timed_out) == 1);
}

TEST_CASE("rfc9293 3.10.7.4: SYN-RECEIVED: the same SYN is answered again, another draws an ACK",
          "[passive]") {
  World w;
  const Seg a = w.knock(5000, 100);
  const Seg b = w.knock(5000, 100);
  CHECK(b.is(kSyn | kAck));
  CHECK(b.seq == a.seq);
  const Seg c = w.knock(5000, 9999);
  CHECK(c.is(kAck));
  CHECK(c.ack == 101);
  CHECK(w.listener.syn_count == 1);
}

TEST_CASE("rfc5961: SYN-RECEIVED: only a RST at RCV.NXT ends it", "[passive]") {
  World w;
  w.knock(5000, 100);
  w.peer.say({.flags = kRst, .seq = 90, .from_port = 5000});
  CHECK(w.peer.silent());
  w.peer.say({.flags = kRst, .seq = 200, .from_port = 5000});
  CHECK(w.peer.hear().is(kAck));
  CHECK(w.listener.syn_count == 1);
  w.peer.say({.flags = kRst, .seq = 101, .from_port = 5000});
  CHECK(w.peer.silent());
  CHECK(w.listener.syn_count == 0);
}

TEST_CASE("rfc9293 3.10.7.4: SYN-RECEIVED: a wrong ACK draws RST and is forgotten", "[passive]") {
  World w;
  const Seg a = w.knock(5000, 100);
  w.peer.say({.flags = kAck, .seq = 101, .ack = a.seq + 2, .from_port = 5000});
  const Seg r = w.peer.hear();
  CHECK(r.is(kRst));
  CHECK(r.seq == a.seq + 2);
  w.peer.say({.flags = kAck, .seq = 101, .ack = a.seq + 1, .from_port = 5000});
  CHECK(w.host.accepted.size() == 1);
}

TEST_CASE("rfc5927: of a half-open connection only what says that its peer cannot be reached is believed, if it quotes our SYN", "[passive]") {
  World w;
  const Seg a = w.knock(5000, 100);
  w.peer.local_port = 5000;
  for (const std::uint8_t code : {2, 3, 9, 10, 13}) w.peer.send_unreachable(code, a.seq);  // refused, or forbidden, by somebody on the way
  w.peer.send_unreachable(1, a.seq + 1);
  CHECK(w.listener.syn_count == 1);
  w.peer.say({.flags = kAck, .seq = 101, .ack = a.seq + 1, .from_port = 5000});
  CHECK(w.host.accepted.size() == 1);
  const std::uint8_t unreachable = GENERATE(0, 1);
  const Seg b = w.knock(5001, 100);
  w.peer.local_port = 5001;
  w.peer.send_unreachable(unreachable, b.seq);
  CHECK(w.listener.syn_count == 0);
}

TEST_CASE("data and FIN that come with the last ACK of the handshake count", "[passive]") {
  World w;
  const Seg a = w.knock(5000, 100);
  w.peer.say({.flags = kAck | kFin, .seq = 101, .ack = a.seq + 1, .data = "bye", .from_port = 5000});
  REQUIRE(w.host.accepted.size() == 1);
  CHECK(w.host.accepted[0]->received == 3);
  CHECK(w.host.accepted[0]->eof);
}

TEST_CASE("rfc9293 3.10.7.4: SYN-RECEIVED: text that overlaps the SYN counts from where it is new, what lies before it does not", "[passive]") {
  World w;
  const Seg a = w.knock(5000, 100);
  w.peer.say({.flags = kAck, .seq = 90, .ack = a.seq + 1, .data = "0123456789", .from_port = 5000});  // up to the SYN
  CHECK(w.peer.hear().ack == 101);
  CHECK(w.host.accepted.empty());
  w.peer.say({.seq = 100, .data = "Sdata", .from_port = 5000});  // without an ACK it is dropped in silence
  CHECK(w.peer.silent());
  CHECK(w.host.accepted.empty());
  w.peer.say({.flags = kAck | kFin, .seq = 100, .ack = a.seq + 1, .data = "Sdata", .from_port = 5000});
  REQUIRE(w.host.accepted.size() == 1);
  CHECK(w.host.accepted[0]->received == 4);
  CHECK(w.host.accepted[0]->eof);
}

// --- limits

TEST_CASE("the accept queue takes one more than the backlog, as in Linux; then the last ACK is ignored",
          "[passive]") {
  World w({}, {.backlog = 3});
  w.host.accepting = false;
  std::vector<Seg> answers;
  for (std::uint16_t port = 5000; port < 5003; ++port) answers.push_back(w.knock(port));
  for (std::uint16_t i = 0; i < 3; ++i)
    w.peer.say({.flags = kAck, .seq = 1001, .ack = answers[i].seq + 1, .from_port = std::uint16_t(5000 + i)});
  CHECK(w.listener.accept_count == 3);
  for (std::uint16_t port = 5003; port < 5005; ++port) {
    answers.push_back(w.knock(port));
    CHECK(answers.back().is(kSyn | kAck));
  }
  for (std::uint16_t i = 3; i < 5; ++i)
    w.peer.say({.flags = kAck, .seq = 1001, .ack = answers[i].seq + 1, .from_port = std::uint16_t(5000 + i)});
  CHECK(w.listener.accept_count == 4);
  CHECK(w.listener.syn_count == 1);
  CHECK(w.host.count(Counter::accept_queue_full) == 1);
  // And a new SYN is dropped.
  CHECK(w.knock(6000).flags == 0);
  // The application takes them; the peer's next ACK, drawn by the SYN-ACK sent again, completes the fifth.
  w.host.accepting = true;
  w.sim.run_for(seconds(1));
  CHECK(w.peer.hear().is(kSyn | kAck));
  w.peer.say({.flags = kAck, .seq = 1001, .ack = answers[4].seq + 1, .from_port = 5004});
  CHECK(w.host.accepted.size() == 5);
}

TEST_CASE("a listener that is left to another process is silent where a closed one refuses", "[passive]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.leave(server.listen(80));
  server.close(server.listen(81));
  Socket& waits = client.connect(server, 80);
  Socket& refused = client.connect(server, 81);
  sim.run_for(milliseconds(500));
  CHECK(refused.error == Errc::connection_refused);
  CHECK(waits.error == Errc::ok);
  CHECK_FALSE(waits.connected);
  CHECK(server.count(Counter::left_to_another) == 1);
  server.listen(80);  // as the other process would
  CHECK(sim.run_until([&] { return waits.connected; }, seconds(5)));
}

TEST_CASE("tcp_abort_on_overflow resets what does not fit into the accept queue", "[passive]") {
  World w([](Options& o) { o.tcp.abort_on_overflow = true; }, {.backlog = 1});
  w.host.accepting = false;
  const auto finish = [&](std::uint16_t port, const Seg& answer) {
    w.peer.say({.flags = kAck, .seq = 1001, .ack = answer.seq + 1, .from_port = port});
  };
  finish(5000, w.knock(5000));
  const Seg b = w.knock(5001);
  w.listener.backlog = 2;  // so that the next one is not a cookie
  const Seg c = w.knock(5002);
  w.listener.backlog = 1;
  finish(5001, b);
  CHECK(w.peer.silent());
  CHECK(w.listener.accept_count == 2);
  finish(5002, c);
  CHECK(w.peer.hear().is(kRst));
  CHECK(w.listener.accept_count == 2);
  CHECK(w.listener.syn_count == 0);
}

TEST_CASE("without cookies a full SYN queue drops SYNs", "[passive]") {
  World w([](Options& o) { o.tcp.syncookies = false; }, {.backlog = 10});
  for (std::uint16_t port = 5000; port < 5010; ++port) CHECK(w.knock(port).is(kSyn | kAck));
  CHECK(w.knock(5010).flags == 0);
  CHECK(w.host.count(Counter::syn_backlog_full) == 1);
}

TEST_CASE("without a connection slot the handshake stays half-open", "[passive]") {
  World w([](Options& o) { o.tcp.max_connections = 1; });
  const Seg a = w.knock(5000), b = w.knock(5001);
  w.peer.say({.flags = kAck, .seq = 1001, .ack = a.seq + 1, .from_port = 5000});
  w.peer.say({.flags = kAck, .seq = 1001, .ack = b.seq + 1, .from_port = 5001});
  CHECK(w.host.accepted.size() == 1);
  CHECK(w.listener.syn_count == 1);
  CHECK(w.host.count(Counter::no_connection_slots) == 1);
  w.host.accepted[0]->abort();
  w.peer.say({.flags = kAck, .seq = 1001, .ack = b.seq + 1, .from_port = 5001});
  CHECK(w.host.accepted.size() == 2);
}

TEST_CASE("TCP_DEFER_ACCEPT waits for data, and not for ever", "[passive]") {
  World w({}, {.defer_accept = seconds(3)});
  const Seg a = w.knock(5000), b = w.knock(5001);
  w.peer.say({.flags = kAck, .seq = 1001, .ack = a.seq + 1, .from_port = 5000});
  w.peer.say({.flags = kAck, .seq = 1001, .ack = b.seq + 1, .from_port = 5001});
  CHECK(w.host.accepted.empty());
  w.peer.say({.flags = kAck, .seq = 1001, .ack = a.seq + 1, .data = "GET", .from_port = 5000});
  CHECK(w.host.accepted.size() == 1);
  w.peer.forget();
  w.sim.run_for(seconds(2));
  CHECK(w.peer.silent());  // the SYN-ACK has been acknowledged: it is not sent again meanwhile
  w.sim.run_for(seconds(6));
  CHECK(w.peer.hear().is(kSyn | kAck));
  w.peer.say({.flags = kAck, .seq = 1001, .ack = b.seq + 1, .from_port = 5001});
  CHECK(w.host.accepted.size() == 2);
}

TEST_CASE("closing a listener resets what nobody accepted and forgets what is half-open", "[passive]") {
  World w;
  w.host.accepting = false;
  const Seg a = w.knock(5000);
  w.knock(5001);
  w.peer.say({.flags = kAck, .seq = 1001, .ack = a.seq + 1, .from_port = 5000});
  CHECK(w.listener.accept_count == 1);
  w.host.close(w.listener);
  w.sim.run_for(milliseconds(2));
  CHECK(w.peer.hear().is(kRst | kAck));
  CHECK(w.host.worker->connections() == 0);
  CHECK(w.knock(5002).is(kRst | kAck));
  CHECK(w.host.leaked_packets() == 0);
}

TEST_CASE("a listener on the exact address wins over the wildcard, and :: takes IPv4 unless it is v6 only",
          "[passive]") {
  Sim sim(2);
  Host& h = sim.add_host();
  RawPeer peer{sim, h, 4000, 80};
  Worker& w = *h.worker;
  const auto dual = w.listen({IpAddress::any_v6(), 80}, {});
  REQUIRE(dual);
  CHECK(w.listen({IpAddress::any_v4(), 80}, {}).error() == Errc::address_in_use);
  peer.handshake();
  CHECK((*dual)->accept_count == 1);
  const auto exact = w.listen({h.address, 80}, {});
  REQUIRE(exact);
  CHECK(w.listen({h.address, 80}, {}).error() == Errc::address_in_use);
  CHECK(w.listen({IpAddress::v4(10, 9, 9, 9), 80}, {}).error() == Errc::address_unavailable);
  peer.local_port = 4001;
  peer.handshake();
  CHECK((*exact)->accept_count == 1);
  const auto v6 = w.listen({IpAddress::any_v6(), 81}, {.v6_only = true});
  REQUIRE(v6);
  peer.forget();
  peer.say({.flags = kSyn, .seq = 1, .to_port = 81});
  CHECK(peer.hear().is(kRst | kAck));
  const auto v4 = w.listen({IpAddress::any_v4(), 81}, {});
  REQUIRE(v4);
  peer.say({.flags = kSyn, .seq = 1, .to_port = 81});
  CHECK(peer.hear().is(kSyn | kAck));
}

TEST_CASE("a SO_REUSEPORT group shares the connections", "[passive]") {
  Sim sim(2);
  Host& h = sim.add_host();
  RawPeer peer{sim, h, 4000, 80};
  std::vector<Listener*> group;
  for (int i = 0; i < 4; ++i) {
    const auto l = h.worker->listen({h.address, 80}, {.reuse_port = true});
    REQUIRE(l);
    group.push_back(*l);
  }
  CHECK(h.worker->listen({h.address, 80}, {}).error() == Errc::address_in_use);
  for (std::uint16_t p = 4000; p < 4100; ++p) {
    peer.local_port = p;
    peer.handshake();
  }
  std::uint32_t sum = 0;
  for (Listener* l : group) {
    CHECK(l->accept_count > 10);
    sum += l->accept_count;
  }
  CHECK(sum == 100);
}

// --- SYN cookies

TEST_CASE("rfc4987 3.6: past the SYN queue cookies carry MSS, window scale, timestamps and SACK", "[passive]") {
  World w({}, {.backlog = 4});
  for (std::uint16_t port = 5000; port < 5004; ++port) w.knock(port);
  const Seg a = w.knock(6000, 300, true);
  REQUIRE(a.is(kSyn | kAck));
  CHECK(a.timestamps);
  CHECK(a.window_scale == 10);
  CHECK(w.listener.syn_count == 4);
  CHECK(w.host.count(Counter::syn_cookies_sent) == 1);
  w.peer.say({.flags = kAck,
              .seq = 301,
              .ack = a.seq + 1,
              .data = "hello",
              .timestamps = true,
              .ts_val = 12346,
              .ts_ecr = a.ts_val,
              .from_port = 6000});
  REQUIRE(w.host.accepted.size() == 1);
  CHECK(w.host.accepted[0]->received == 5);
  const ConnectionInfo i = w.host.worker->info(*w.host.accepted[0]->connection);
  CHECK(i.timestamps);
  CHECK(i.sack);
  CHECK(i.wscale);
  CHECK(i.snd_wscale == 7);
  CHECK(i.peer_mss == 1460);
  CHECK(i.mss == 1448);
  CHECK(w.host.count(Counter::syn_cookies_received) == 1);
}

TEST_CASE("rfc4987 3.6: a cookie without timestamps carries the MSS alone", "[passive]") {
  World w({}, {.backlog = 4});
  for (std::uint16_t port = 5000; port < 5004; ++port) w.knock(port);
  w.peer.say(
      {.flags = kSyn, .seq = 300, .mss = 1310, .window_scale = 7, .sack_permitted = true, .from_port = 6000});
  const Seg a = w.peer.hear();
  REQUIRE(a.is(kSyn | kAck));
  CHECK(a.window_scale == -1);
  CHECK_FALSE(a.sack_permitted);
  w.sim.run_for(seconds(30));
  w.peer.say({.flags = kAck, .seq = 301, .ack = a.seq + 1, .from_port = 6000});
  REQUIRE(w.host.accepted.size() == 1);
  const ConnectionInfo i = w.host.worker->info(*w.host.accepted[0]->connection);
  CHECK_FALSE(i.wscale);
  CHECK_FALSE(i.sack);
  CHECK(i.peer_mss == 1300);
}

TEST_CASE("a cookie that is old, forged or another flow's is refused with RST", "[passive]") {
  World w({}, {.backlog = 1});
  w.knock(5000);
  const Seg a = w.knock(6000, 300);
  REQUIRE(w.host.count(Counter::syn_cookies_sent) == 1);
  const auto refused = [&](const Seg& s) {
    w.peer.forget();
    w.peer.say(s);
    return w.peer.hear().is(kRst);
  };
  CHECK(refused({.flags = kAck, .seq = 301, .ack = a.seq + 2, .from_port = 6000}));
  CHECK(refused({.flags = kAck, .seq = 302, .ack = a.seq + 1, .from_port = 6000}));
  CHECK(refused({.flags = kAck, .seq = 301, .ack = a.seq + 1, .from_port = 6001}));
  CHECK(w.host.count(Counter::syn_cookies_failed) == 3);
  w.sim.run_for(seconds(100));
  w.knock(7000);  // another cookie, so that they are still taken at all
  w.sim.run_for(seconds(60));
  CHECK(refused({.flags = kAck, .seq = 301, .ack = a.seq + 1, .from_port = 6000}));
  CHECK(w.host.accepted.empty());
}

TEST_CASE("a SYN flood takes no more memory than its limits, and honest peers still get in", "[passive]") {
  Sim sim(31);
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  RawPeer flood{sim, server, 1, 80};
  server.listen(80, {.backlog = 128});
  server.on_accept = [](Socket& s) { s.echo = s.close_on_eof = true; };
  std::vector<Socket*> honest;
  for (int i = 0; i < 20'000; ++i) {
    flood.send({.flags = kSyn,
                .seq = std::uint32_t(sim.random()),
                .from_port = std::uint16_t(1 + sim.random() % 65535)});
    if (i % 200 == 0) {
      Socket& s = client.connect(server, 80);
      s.send(1000);
      s.shutdown_when_sent = s.close_on_eof = true;
      honest.push_back(&s);
    }
    if (i % 10 == 0) sim.run_for(microseconds(100));
  }
  sim.run_for(seconds(2));
  CHECK(server.listeners[0]->syn_count <= 128);
  CHECK(server.count(Counter::syn_cookies_sent) > 10'000);
  int served = 0;
  for (Socket* s : honest) served += s->received == 1000 && s->wrong == 0 && s->error == Errc::ok ? 1 : 0;
  CHECK(served == 100);
  CHECK(server.count(Counter::syn_cookies_received) > 50);
  sim.run_for(seconds(120));
  CHECK(server.listeners[0]->syn_count == 0);
  CHECK(server.worker->connections() == 0);
  CHECK(server.leaked_packets() == 0);
}

TEST_CASE("a chosen local port that is in use towards the same peer is refused", "[passive]") {
  Sim sim(4);
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80);
  server.listen(81);
  client.connect(server, 80, {}, 1234);
  CHECK(client.try_connect({server.address, 80}, {}, 1234) == nullptr);
  CHECK(client.connect_error == Errc::address_unavailable);
  CHECK(client.try_connect({server.address, 81}, {}, 1234) != nullptr);
}

TEST_CASE("rfc6528: initial sequence numbers differ by flow and grow with time for the same one",
          "[passive]") {
  World w;
  std::set<std::uint32_t> seen;
  for (std::uint16_t p = 5000; p < 5050; ++p) seen.insert(w.knock(p).seq);
  CHECK(seen.size() == 50);
  const Seg first = w.knock(6000, 100);
  w.peer.say({.flags = kRst, .seq = 101, .from_port = 6000});
  w.sim.run_for(milliseconds(996));
  w.peer.forget();
  const Seg second = w.knock(6000, 100);
  CHECK(second.seq - first.seq == Approx(15'625'000).margin(62'500));  // 64 ns each
}
