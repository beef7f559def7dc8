// Processes with one address on one device, and a client: what the tests of several stacks begin with.
#pragma once

#include <catch2/catch.hpp>

#include "tests/sim/sim.hh"

namespace mtcp::sim {

inline void echo(Socket& s) { s.echo = s.close_on_eof = true; }

// A process that echoes what comes on port 80, however much comes at once.
inline Host& add_echo_server(Sim& sim, SimSharedDevice& device) {
  Host& h = sim.add_process(device);
  h.on_accept = echo;
  h.listen(80, {.backlog = 1000});
  return h;
}

struct SharedWorld {
  explicit SharedWorld(std::uint32_t queues = 1) : device(sim.add_device(queues)) {
    sim.run_for(milliseconds(1));
  }
  // `port` 0: it listens nowhere.
  Host& process(std::uint16_t port = 80) {
    Host& h = sim.add_process(device);
    h.on_accept = echo;
    if (port != 0) h.listen(port);
    sim.run_for(milliseconds(30));  // so that queues and table are shared out
    if (sim.hosts.size() > 2) return h;
    // Few SYNs may wait for ARP.
    Socket* warm = client.try_connect({Sim::kShared, 9});
    sim.run_for(milliseconds(2));
    REQUIRE(warm->error == Errc::connection_refused);
    h.stats = {};
    return h;
  }
  Socket& connect(std::uint64_t bytes = 0, std::uint16_t port = 80) {
    Socket* s = client.try_connect({Sim::kShared, port});
    REQUIRE(s != nullptr);
    s->to_send = bytes;
    return *s;
  }
  // Connections whose packets `h` owns.
  std::vector<Socket*> connect_to(Host& h, std::size_t n, std::uint64_t bytes, std::uint16_t port = 80) {
    std::vector<Socket*> out;
    while (out.size() < n) {
      Socket& s = connect(bytes, port);
      const FlowKey theirs{s.key.remote, s.key.local, s.key.remote_port, s.key.local_port};
      if (h.steering->may_open(theirs))
        out.push_back(&s);
      else
        s.abort();
    }
    return out;
  }
  static bool good(const Socket& s, std::uint64_t bytes) {
    return s.error == Errc::ok && s.received == bytes && s.wrong == 0;
  }

  Sim sim;
  Host& client = sim.add_host();
  SimSharedDevice& device;
};

}  // namespace mtcp::sim
