// Processes that join, reload, are killed and come again, with transfers in progress on a bad wire; and an oracle
// that says whose every connection is and what may happen to it.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "tests/sim/shared_world.hh"

namespace mtcp::sim {

struct Fate {
  Socket* socket;
  Time doomed_at{};      // its stack was killed
  bool unclaimed = false;  // a stack was killed while no stack had it: half-open, or in the messages
};

class Churn {
 public:
  explicit Churn(std::uint32_t queues, std::uint32_t slots = 16) : device(sim.add_device(queues, slots)) {
    sim.wire.options.jitter = microseconds(100);
  }

  // --- before and after
  // So many processes, and a first connection.
  void begin(int processes) {
    for (int i = 0; i < processes; ++i) join();
    run_for(milliseconds(50));
    open_one();  // alone: few SYNs may wait for ARP
    run_for(milliseconds(20));
  }
  // All connections end, and nothing was lost that should not have been.
  void finish() {
    for (int i = 0; i < 200 && !open.empty(); ++i) run_for(seconds(1));
    CHECK(open.empty());
    CHECK(what == "");
    CHECK(wrong == 0);
  }

  // --- processes
  Host& join() {
    Host& h = add_echo_server(sim, device);
    living.push_back(&h);
    return h;
  }
  void leave(Host& h) {
    std::erase(living, &h);
    draining.push_back(&h);
    h.stalled_until = {};
    h.clock_delay = {};
    h.leave(*h.listeners.front());
  }
  // As with a mutex of accepting: one of them waits for connections just now.
  void pass_mutex() {
    Host* to = living[sim.random() % living.size()];
    for (Host* h : living) h->watch(*h->listeners.front(), h == to);
  }
  // They compute, wait for the CPU, or read their clock late.
  void disturb() {
    for (const auto* hosts : {&living, &draining})
      for (Host* h : *hosts) {
        if (sim.random() % 4 == 0) h->clock_delay = sim.random() % 2 == 0 ? milliseconds(sim.random() % 12) : Duration::zero();
        if (sim.random() % 10 == 0) h->stalled_until = sim.now + microseconds(sim.random() % (sim.random() % 20 == 0 ? 30'000 : 400));
      }
  }
  // Whether there are slots for the old workers and as many new ones.
  [[nodiscard]] bool may_reload() const { return living.size() * 2 + draining.size() <= device.control().slots(); }
  // As `nginx -s reload`, where that may be: new workers first, or the old ones first.
  void reload() {
    const auto old = living;
    const bool new_first = sim.random() % 2 == 0;
    const std::size_t n = std::max<std::size_t>(1, std::min(old.size(), std::size_t{4}));
    if (new_first)
      for (std::size_t i = 0; i < n; ++i) join();
    for (Host* h : old) leave(*h);
    if (new_first) return;
    run_for(microseconds(static_cast<std::int64_t>(sim.random() % 20'000)));
    end_drained();
    for (std::size_t i = 0; i < n && sim_has_room(); ++i) join();
  }
  void kill(Host& h) {
    // Who has what, before it dies.
    const auto owners = flows();
    for (Fate& f : open) {
      const auto at = owners.find(f.socket->key.local_port);
      if (at == owners.end())
        f.unclaimed = true;
      else if (at->second == &h)
        f.doomed_at = sim.now;
    }
    std::erase(living, &h);
    std::erase(draining, &h);
    h.kill();
    prune();
  }
  // A process that has nobody left ends, unless it is the last one that can answer.
  void end_drained() {
    if (living.empty()) return;
    for (std::size_t i = draining.size(); i-- > 0;) {
      Host& h = *draining[i];
      if (std::ranges::any_of(h.sockets, [](const auto& s) { return s->connection != nullptr; })) continue;
      if (undelivered(h)) continue;
      draining.erase(draining.begin() + static_cast<std::ptrdiff_t>(i));
      for (auto& s : h.sockets) wrong += s->wrong;
      gone_migrated += h.count(Counter::connections_adopted);
      h.stalled_until = {};
      h.exit();
      prune();
    }
  }
  void calm() {
    for (const auto* hosts : {&living, &draining})
      for (Host* h : *hosts) h->stalled_until = {}, h->clock_delay = {};
  }
  [[nodiscard]] std::uint64_t migrated() const {
    std::uint64_t sum = gone_migrated;
    for (const auto* hosts : {&living, &draining})
      for (const Host* h : *hosts) sum += h->count(Counter::connections_adopted);
    return sum;
  }
  [[nodiscard]] bool sim_has_room() const { return living.size() + draining.size() < device.control().slots(); }

  // --- the clients
  void open_one() {
    Socket* s = client.try_connect({Sim::kShared, 80}, options);
    REQUIRE(s != nullptr);
    s->to_send = 1 + sim.random() % (sim.random() % 10 == 0 ? 100'000 : 3000);
    open.push_back({s});
    ++opened;
  }
  void run_for(Duration d) {
    const Time end = sim.now + d;
    while (sim.now < end) {
      sim.step(end);
      look();
    }
  }
  // What has ended, and whether it was allowed to.
  void look() {
    std::erase_if(open, [this](Fate& f) {
      Socket& s = *f.socket;
      if (s.error == Errc::ok && s.received == s.to_send && s.connected) s.shutdown_when_sent = s.close_on_eof = true, s.kick();
      if (s.connection != nullptr) return false;
      wrong += s.wrong;
      const bool ok = s.error == Errc::ok && s.received == s.to_send && s.eof;
      const bool excused = f.unclaimed || f.doomed_at != Time{};
      ok ? ++good : excused ? ++killed : ++lost;
      if (f.doomed_at != Time{} && !ok) slowest = std::max(slowest, sim.now - f.doomed_at);
      if (!ok && !excused) {
        what += "port " + std::to_string(s.key.local_port) + ": " + name(s.error) + ", " + std::to_string(s.received) +
                " of " + std::to_string(s.to_send) + (s.connected ? ", connected\n" : "\n");
      }
      return true;
    });
  }

  // --- the oracle
  // Whose each connection is, by the client's port; REQUIREs that it is one stack's only.
  std::map<std::uint16_t, Host*> flows() {
    std::map<std::uint16_t, Host*> owners;
    for (const auto* hosts : {&living, &draining})
      for (Host* h : *hosts) {
        struct Context {
          std::map<std::uint16_t, Host*>& owners;
          Host* h;
          int twice = 0;
        } context{owners, h};
        h->worker->for_each(
            [](void* p, const ConnectionInfo& i) {
              auto& c = *static_cast<Context*>(p);
              if (i.state != State::closed && !c.owners.emplace(i.key.remote_port, c.h).second) ++c.twice;
            },
            &context);
        REQUIRE(context.twice == 0);
      }
    return owners;
  }
  void check_shares() {
    std::map<std::uint8_t, std::uint32_t> entries;
    const ControlBlock& control = device.control();
    for (std::uint32_t i = 0; i < control.entries(); ++i) {
      const std::uint8_t owner = control.home(i);
      ++entries[owner];
      REQUIRE(control.present(owner));
      REQUIRE((control.serving(owner) || living.empty()));
    }
    if (living.empty()) return;
    REQUIRE(entries.size() == living.size());
    const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [least, most] = std::minmax_element(entries.begin(), entries.end(), by_count);
    REQUIRE(most->second - least->second <= 1);
  }

  Sim sim;
  Host& client = sim.add_host();
  SimSharedDevice& device;
  SocketOptions options;
  std::vector<Host*> living, draining;
  std::vector<Fate> open;
  int opened = 0, good = 0, killed = 0, lost = 0;
  std::uint64_t wrong = 0;
  std::uint64_t gone_migrated = 0;  // adopted by those who have ended
  Duration slowest{};
  std::string what;  // was lost

 private:
  static bool undelivered(Host& h) {
    bool some = false;
    h.worker->for_each(
        [](void* p, const ConnectionInfo& i) {
          const bool unaccepted = i.state == State::established || i.state == State::close_wait;
          if (i.state != State::closed && i.state != State::fin_wait_2 && !unaccepted) *static_cast<bool*>(p) = true;
        },
        &some);
    return some;
  }
  void prune() {
    std::erase_if(sim.hosts, [](const auto& h) { return h->worker == nullptr; });
  }
};

}  // namespace mtcp::sim
