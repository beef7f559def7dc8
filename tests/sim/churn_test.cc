// Thousands of connections opened and closed on a bad wire: every one ends as it should, and nothing is left
// behind.
#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

using namespace mtcp::sim;

namespace {

struct Behaviour {
  bool client_closes_first;
  std::uint64_t request, answer;
};

Behaviour choose(std::mt19937_64& random) {
  Behaviour b;
  b.client_closes_first = random() % 2 == 0;
  b.request = 1 + random() % 3000;
  b.answer = random() % 3 == 0 ? random() % 20000 : random() % 200;
  return b;
}

// Opens `total` connections, `parallel` at a time. Who closes first is told by the client's choice: the
// server, when it has the whole request (its length is in the local port's entry), answers and closes or
// waits for the client to.
struct Churn {
  Sim& sim;
  Host& server;
  Host& client;
  std::map<std::uint16_t, Behaviour> by_port;
  std::vector<Socket*> running;
  int opened = 0, good = 0, failed = 0;

  void prepare() {
    // So many SYNs at once would overflow the few slots that wait for ARP.
    const WireOptions bad = std::exchange(sim.wire.options, WireOptions{});
    Listener& warm = server.listen(9);
    Socket& s = client.connect(server, 9);
    sim.run_for(milliseconds(1));
    s.abort();
    sim.run_for(milliseconds(1));
    server.close(warm);
    sim.wire.options = bad;
    server.on_accept = [this](Socket& s) {
      const Behaviour& b = by_port.at(s.key.remote_port);
      s.to_send = b.answer;
      if (b.client_closes_first)
        s.close_on_eof = true;
      else
        s.shutdown_when_sent = s.close_on_eof = true;
    };
  }
  void open_one() {
    Socket* s = client.try_connect({server.address, 80});
    REQUIRE(s != nullptr);
    const Behaviour b = choose(sim.random);
    by_port[s->key.local_port] = b;
    s->to_send = b.request;
    if (b.client_closes_first) s->shutdown_when_sent = true;
    s->close_on_eof = true;
    running.push_back(s);
    ++opened;
  }
  void run(int total, std::size_t parallel) {
    prepare();
    const Time end = sim.now + seconds(3600);
    while ((opened < total || !running.empty()) && sim.now < end) {
      while (opened < total && running.size() < parallel) open_one();
      sim.step(end);
      std::erase_if(running, [this](Socket* s) {
        if (s->connection != nullptr) return false;
        const Behaviour& b = by_port.at(s->key.local_port);
        const bool ok = s->error == Errc::ok && s->received == b.answer && s->wrong == 0 && s->eof;
        ok ? ++good : ++failed;
        if (!ok)
          UNSCOPED_INFO("port " << s->key.local_port << " " << name(s->error) << " received " << s->received
                                << " of " << b.answer);
        return true;
      });
    }
  }
  // Long enough for every retransmission and TIME-WAIT to end.
  void settle() { sim.run_for(seconds(200)); }
};

void check_nothing_left(Host& h) {
  h.worker->for_each(
      [](void*, const ConnectionInfo& i) {
        UNSCOPED_INFO(name(i.state) << " ports " << i.key.local_port << "/" << i.key.remote_port << " queued "
                                    << i.tx_queued << " unread " << i.rx_queued << " retransmits "
                                    << i.retransmits);
      },
      nullptr);
  CHECK(h.worker->connections() == 0);
  CHECK(h.worker->time_waits() == 0);
  for (Listener* l : h.listeners) CHECK(l->syn_count == 0);
  CHECK(h.leaked_packets() == 0);
}

}  // namespace

TEST_CASE("five thousand connections on a good wire all end well", "[churn]") {
  Sim sim;
  INFO(sim.label());
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80, {.backlog = 1000});
  Churn churn{sim, server, client};
  churn.run(5000, 200);
  CHECK(churn.good == 5000);
  CHECK(churn.failed == 0);
  CHECK(client.count(Counter::retransmitted_segments) == 0);
  CHECK(server.count(Counter::retransmitted_segments) == 0);
  CHECK(server.count(Counter::passive_opens) == 5001);
  churn.settle();
  check_nothing_left(server);
  check_nothing_left(client);
}

TEST_CASE("three thousand connections through loss, duplicates, reordering and corruption all end well",
          "[churn]") {
  Sim sim;
  INFO(sim.label());
  sim.wire.options.loss = 0.05;
  sim.wire.options.duplicate = 0.05;
  sim.wire.options.reorder = 0.1;
  sim.wire.options.corrupt = 0.02;
  sim.wire.options.jitter = microseconds(200);
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80, {.backlog = 1000});
  Churn churn{sim, server, client};
  churn.run(3000, 100);
  CHECK(churn.good == 3000);
  CHECK(churn.failed == 0);
  churn.settle();
  std::uint64_t wrong = 0;
  for (Socket* s : server.accepted) wrong += s->wrong;
  CHECK(wrong == 0);
  check_nothing_left(server);
  check_nothing_left(client);
}

TEST_CASE("connections that are reset at random times leave nothing behind", "[churn]") {
  Sim sim;
  INFO(sim.label());
  sim.wire.options.loss = 0.1;
  sim.wire.options.reorder = 0.1;
  Host& server = sim.add_host();
  Host& client = sim.add_host();
  server.listen(80, {.backlog = 50});
  server.on_accept = [](Socket& s) {
    s.echo = true;
    s.close_on_eof = true;
  };
  std::vector<Socket*> open;
  for (int i = 0; i < 2000; ++i) {
    if (Socket* s = client.try_connect({server.address, 80}); s != nullptr) {
      s->to_send = 1 + sim.random() % 5000;
      open.push_back(s);
    }
    sim.run_for(microseconds(200));
    // One end or the other gives up in whatever state it is.
    auto& victims = sim.random() % 2 == 0 ? client.sockets : server.sockets;
    if (victims.empty()) continue;
    Socket& s = *victims[sim.random() % victims.size()];
    if (sim.random() % 2 == 0)
      s.abort();
    else
      s.close();
  }
  for (auto* h : {&server, &client})
    for (auto& s : h->sockets) s->close();
  server.on_accept = [](Socket& s) { s.close(); };
  sim.run_for(seconds(600));
  std::uint64_t wrong = 0;
  for (auto* h : {&server, &client})
    for (auto& s : h->sockets) wrong += s->wrong;
  CHECK(wrong == 0);
  check_nothing_left(server);
  check_nothing_left(client);
}
