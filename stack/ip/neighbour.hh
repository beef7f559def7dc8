// The neighbours on the link and their MAC addresses: the table behind resolver.hh, with the states of RFC 4861
// section 7.3.2 as Linux has them. A bounded table: whoever floods it evicts his own entries first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "stack/base/time.hh"
#include "stack/packet/packet.hh"
#include "stack/wire/address.hh"
#include "stack/wire/ethernet.hh"

namespace mtcp::stack {

struct Neighbour {
  enum class State : std::uint8_t {
    incomplete,  // asked, no answer yet: packets wait
    reachable,   // answered not long ago
    stale,       // known, to be confirmed when it is used next
    probe,       // in use while it is being confirmed
    failed,      // did not answer
  };
  IpAddress address;
  State state = State::incomplete;
  std::uint8_t probes = 0;                          // requests sent since the last answer
  bool pinned = false;                              // a gateway: never evicted
  bool used = false;                                // sent to since the eviction hand last passed
  std::uint16_t waiting = 0;                        // packets in `queue`
  std::array<std::byte, kEthernetHeader> header{};  // of an IP frame to it, once the MAC is known
  MacAddress mac;
  PacketList queue;            // packets from the IP header on
  Time updated{};              // when the MAC was last learnt or confirmed
  Time next_probe{};           // in incomplete and probe
  Neighbour* chain = nullptr;  // the table's

  [[nodiscard]] bool resolved() const {
    return state == State::reachable || state == State::stale || state == State::probe;
  }
};

class NeighbourTable {
 public:
  // `limit`: entries.
  explicit NeighbourTable(std::size_t limit);

  [[nodiscard]] Neighbour* find(const IpAddress& address) {
    Neighbour* n = buckets_[bucket(address)];
    while (n != nullptr && !(n->address == address)) n = n->chain;
    return n;
  }
  // A new entry in state incomplete; `address` is not in the table. In a full table another one gives way,
  // and what waited for it moves to `evicted`. Null only if all entries are pinned.
  Neighbour* insert(const IpAddress& address, PacketList& evicted);
  [[nodiscard]] std::deque<Neighbour>& all() { return entries_; }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  [[nodiscard]] std::size_t bucket(const IpAddress& address) const { return mix(address) >> shift_; }
  Neighbour* choose_victim();
  void unlink(Neighbour& n);

  std::size_t limit_;
  unsigned shift_;
  std::vector<Neighbour*> buckets_;
  std::deque<Neighbour> entries_;  // does not move its elements
  std::size_t hand_ = 0;           // where the search for a victim goes on
};

}  // namespace mtcp::stack
