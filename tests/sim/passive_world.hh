// A host with a listener on port 80, and a hand-written peer that knocks.
#pragma once

#include "tests/sim/raw_peer.hh"

namespace mtcp::sim {

struct PassiveWorld {
  explicit PassiveWorld(const std::function<void(Options&)>& tune = {}, Worker::ListenOptions o = {})
      : host(sim.add_host(tune)), listener(host.listen(80, o)) {}
  Sim sim{21};
  Host& host;
  Listener& listener;
  RawPeer peer{sim, host, 4000, 80};

  // SYN from some port; returns the SYN-ACK, or a Seg without flags.
  Seg knock(std::uint16_t port, std::uint32_t isn = 1000, bool full = false) {
    Seg syn{.flags = kSyn, .seq = isn, .mss = 1460, .from_port = port};
    if (full) {
      syn.window_scale = 7;
      syn.sack_permitted = true;
      syn.timestamps = true;
      syn.ts_val = 12345;
    }
    peer.say(syn);
    return peer.hear();
  }
};

}  // namespace mtcp::sim
