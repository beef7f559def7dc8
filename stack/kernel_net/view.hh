// What the kernel says of one of its interfaces: link, addresses, routes. Plain values, and the look-ups that go with them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stack/wire/address.hh"

namespace mtcp::stack {

struct KernelLink {
  bool exists = false;
  bool up = false;  // administratively, and its carrier
  std::uint32_t index = 0;
  std::uint32_t mtu = 0;  // bytes of an IP packet
  MacAddress mac;
  friend bool operator==(const KernelLink&, const KernelLink&) = default;
};

struct KernelAddress {
  IpAddress address;
  std::uint8_t prefix_length = 0;  // of the 128 bits
  bool deprecated = false;         // not for new connections (RFC 4862 section 5.5.4)
  friend bool operator==(const KernelAddress&, const KernelAddress&) = default;
};

// Of the main table.
struct KernelRoute {
  Prefix destination;
  IpAddress gateway;         // any: the destination is on the link
  IpAddress source;          // any: not said
  std::uint32_t metric = 0;  // the least one counts
  std::uint32_t mtu = 0;     // 0: not said
  bool ours = false;         // leads through the interface; otherwise another one does, or nothing
  friend bool operator==(const KernelRoute& a, const KernelRoute& b) {
    return a.destination.address == b.destination.address && a.destination.length == b.destination.length &&
           a.gateway == b.gateway && a.source == b.source && a.metric == b.metric && a.mtu == b.mtu && a.ours == b.ours;
  }
};

class KernelView {
 public:
  KernelLink link;
  std::vector<KernelAddress> own;  // of the interface; not those that are link-local or not usable yet
  std::vector<IpAddress> others;   // every other one of the kernel's
  bool truncated = false;          // there are more routes than can be kept
  std::uint32_t generation = 0;    // another number after each change

  // In any order; once all are there, sort_routes() makes them fit to be looked up.
  void add(const KernelRoute& route) { routes_.push_back(route); }
  void sort_routes();
  // Whatever the generations are.
  [[nodiscard]] bool says_the_same_as(const KernelView& other) const {
    return link == other.link && own == other.own && others == other.others && truncated == other.truncated &&
           routes_ == other.routes_;
  }
  // The best one, or null.
  [[nodiscard]] const KernelRoute* route_to(const IpAddress& destination) const;
  // It leads through the interface, and is no address of the kernel's.
  [[nodiscard]] bool reaches(const IpAddress& destination) const;
  [[nodiscard]] bool owns(const IpAddress& a) const;
  // The address to use towards `destination` by way of `route` for those who have not chosen one; any: none fits.
  [[nodiscard]] IpAddress source_towards(const IpAddress& destination, const KernelRoute& route) const;
  [[nodiscard]] std::span<const KernelRoute> routes() const { return routes_; }

 private:
  // Routes with the same length of prefix, of one family.
  struct Group {
    bool v4;
    std::uint8_t length;
    std::size_t begin, end;
  };
  std::vector<KernelRoute> routes_;
  std::vector<Group> groups_;  // longest first
};

// What is known of a neighbour.
struct KernelNeighbour {
  enum class State : std::uint8_t {
    unknown,  // no entry, or nothing in it yet
    known,    // `mac` is good
    failed,   // did not answer
  };
  IpAddress address;
  State state = State::unknown;
  bool stale = false;  // known, and to be confirmed when it is used
  MacAddress mac;
};

[[nodiscard]] inline bool is_link_local(const IpAddress& a) {
  return a.is_v4() ? a.bytes[12] == 169 && a.bytes[13] == 254 : a.bytes[0] == 0xfe && (a.bytes[1] & 0xc0) == 0x80;
}

}  // namespace mtcp::stack
