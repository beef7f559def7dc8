// The parts of Tcp that are of no interest outside its own files.
#pragma once

#include <array>
#include <cstdint>

#include "stack/tcp/keys.hh"
#include "stack/tcp/memory.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {

struct Tcp::Private {
  Private(const Options& options, const Secrets& secrets, Time now);

  // One burst of parsed segments on its way from Network to demultiplex().
  struct Batch {
    static constexpr std::size_t kSize = 32;
    std::array<Packet*, kSize> packets;
    std::array<Segment, kSize> segments;
    std::array<std::uint32_t, kSize> hashes;
    std::size_t count = 0;
  };

  SipKey isn_key, ts_key;
  LargestFirst out_of_order;  // those with data out of order ...
  LargestFirst closed;        // ... and those that the application has let go with data on the way
  Time next_scan{};           // reclaim_from_living()
  std::uint32_t orphans = 0;  // connections that the application has let go
  std::uint32_t max_orphans;

  std::uint64_t last_tick;  // timers have been run for it
  Time network_due{};       // Network::run_timers
  std::uint64_t challenge_second = 0;
  std::uint32_t challenge_budget = 0;
  std::uint64_t challenge_random = 0;
  bool link_was_up = false;
  std::uint32_t peers_ended = 0;  // Port::Link, as last seen
  bool peer_gone = false;  // the wire's only peer has ended, and no other one has come
  Batch batch;
};

}  // namespace mtcp::stack
