// A script with a flight of segments of 1,000 bytes on its way, and a peer that says of which it knows.
#pragma once

#include <utility>
#include <vector>

#include "tests/tcp/script.hh"

namespace mtcp::test {

using Blocks = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
using Data = std::vector<std::pair<std::uint32_t, std::size_t>>;

// The segments that carry data since the last call, as (seq, length).
inline Data data_of(Script& s) {
  Data v;
  for (const Out& o : s.all_sent())
    if (!o.data.empty()) v.emplace_back(o.seq, o.data.size());
  return v;
}

// Over 10 ms.
inline Setup with_sack(const char* congestion = "reno", std::uint32_t window = 10) {
  Setup setup;
  setup.sack = true;
  setup.options.tcp.congestion_control = congestion;
  setup.options.tcp.initial_window = window;
  return setup;
}

inline void ack(Script& s, std::uint32_t ack, Blocks sack = {}) { s.peer({.seq = s.peer_seq, .ack = ack, .sack = std::move(sack)}); }

// So many segments are on their way since a round trip, and there is more to send.
inline void fill(Script& s, std::size_t segments = 10) {
  s.peer_ack(0);
  s.write(pattern(200000));
  REQUIRE(data_of(s).size() == segments);
  s.wait(milliseconds(10));
}

}  // namespace mtcp::test
