// The parts of Tcp that belong to the life of connections: half-open ones, TIME-WAITs, listeners, ports,
// keys.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "stack/base/siphash.hh"
#include "stack/base/slab.hh"
#include "stack/tcp/connection.hh"
#include "stack/tcp/destinations.hh"
#include "stack/tcp/filter.hh"
#include "stack/tcp/flow_table.hh"
#include "stack/tcp/listener.hh"
#include "stack/tcp/memory.hh"
#include "stack/tcp/ports.hh"
#include "stack/tcp/syn_entry.hh"
#include "stack/tcp/tcp.hh"
#include "stack/tcp/time_wait.hh"

namespace mtcp::stack {

// Keys for purposes that must not tell of each other.
[[nodiscard]] SipKey derive_key(const std::array<std::uint64_t, 4>& secret, std::uint64_t purpose);

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
  // SYN entries by number of retries: each list has one timeout, so it is in the order of its deadlines.
  using SynList = IntrusiveList<SynEntry, &SynEntry::hook>;
  static constexpr std::size_t kSynLists = 8;

  SipKey isn_key, ts_key, cookie_key, destination_key, fast_open_key;
  Destinations destinations;
  Filter filter;
  struct FastOpen {
    FlowKey key;
    std::uint32_t hash;
    Seq iss;
    Endpoint local;  // of the listener
    Time until;      // it was reset, and counts until then; zero: it was not
  };
  std::vector<FastOpen> fast_opens;  // that listeners have accepted and whose SYN may not be acknowledged yet
  Slab<SynEntry> syn_entries;
  std::array<SynList, kSynLists> syn_lists;
  Slab<TimeWaitEntry> time_waits;
  std::uint32_t tw_oldest = Slab<TimeWaitEntry>::kNone, tw_newest = Slab<TimeWaitEntry>::kNone;
  Slab<Listener> listeners;
  std::vector<Endpoint> left;  // where another process goes on listening
  FlowTable listener_table;
  IntrusiveList<Connection, &Connection::accept_hook> opening;  // SYN-SENT
  Ports ports;
  LargestFirst out_of_order;  // those with data out of order ...
  LargestFirst closed;        // ... and those that the application has let go with data on the way
  Time next_scan{};           // reclaim_from_living()
  std::uint32_t orphans = 0;  // connections that the application has let go
  std::uint32_t max_orphans;

  std::uint64_t last_tick;  // timers have been run for it
  Time network_due{};       // Network::run_timers
  Time cookies_until{};     // SYN cookies are taken until then
  std::uint64_t challenge_second = 0;
  std::uint32_t challenge_budget = 0;
  std::uint64_t challenge_random = 0;
  // Connections of another stack of whose data some has not arrived.
  struct Adopting {
    std::uint32_t index;  // in the slab
    FlowKey key;
    Seq end;   // of that data
    bool fin;  // the peer's FIN follows it
    Time deadline;
  };
  std::vector<Adopting> adopting;
  std::function<bool(const Endpoint&)> still_held;  // Worker::set_still_held
  bool handover_now = false;    // something has become ready to be offered
  bool offering = false;        // what the port was told
  bool closing = false;         // end_listeners(): what is new is for others
  Time handover_due = kNever;   // and what nobody took, or is to end, is looked at again
  bool link_was_up = false;
  bool peer_gone = false;        // the wire's only peer has ended, and no other one has come
  bool parting = false;          // what nobody here knows is left to whoever comes next
  bool serving = false;          // what the port was told
  std::uint32_t half_open_published = 0;  // SynEntry::published
  struct Orphan {
    FlowKey key;
    std::uint32_t number;  // Port::orphan_told
    Time again;            // when its peer is told again
    std::uint8_t left;     // times
  };
  std::deque<Orphan> told;       // in the order of `again`
  bool orphans_waiting = false;  // Port::next_orphan() has more than one tick may see to
  Batch batch;
};

}  // namespace mtcp::stack
