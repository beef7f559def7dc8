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

struct KernelRoute {
  Prefix destination;
  IpAddress gateway;         // any: the destination is on the link
  IpAddress source;          // any: not said
  std::uint32_t metric = 0;  // the least one counts
  std::uint32_t mtu = 0;     // 0: not said
  bool ours = false;         // leads through the interface; otherwise another one does, or nothing
  std::uint32_t table = kMainTable;
  bool passes_on = false;    // the table says nothing of the destination (type throw)
  static constexpr std::uint32_t kMainTable = 254, kLocalTable = 255, kDefaultTable = 253;  // RT_TABLE_*
  friend bool operator==(const KernelRoute& a, const KernelRoute& b) {
    return a.destination.address == b.destination.address && a.destination.length == b.destination.length &&
           a.gateway == b.gateway && a.source == b.source && a.metric == b.metric && a.mtu == b.mtu && a.ours == b.ours &&
           a.table == b.table && a.passes_on == b.passes_on;
  }
};

// Of policy routing (ip-rule(8)): which table has the route, by what a connection of the stack's is.
struct KernelRule {
  bool v4 = true;
  std::uint32_t priority = 0;  // the least one comes first
  Prefix from, to;             // of length zero: any
  // Whether it applies to the connections of the stack as far as neither address decides: they come from this host, through no
  // interface in particular, and have no mark.
  enum class Applies : std::uint8_t { always, perhaps, never };
  Applies applies = Applies::always;
  bool inverted = false;  // to those that all this is not true of
  enum class Action : std::uint8_t { look_up, refuse, nothing };
  Action action = Action::look_up;
  std::uint32_t table = 0;
  int shortest = 0;  // prefix length (of the family) of a route that counts
  friend bool operator==(const KernelRule& a, const KernelRule& b) {
    const auto same = [](const Prefix& x, const Prefix& y) { return x.address == y.address && x.length == y.length; };
    return a.v4 == b.v4 && a.priority == b.priority && same(a.from, b.from) && same(a.to, b.to) && a.applies == b.applies &&
           a.inverted == b.inverted && a.action == b.action && a.table == b.table && a.shortest == b.shortest;
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
  // In the order in which they are asked. Where a family has no other rules than Linux begins with, none are kept: then its
  // routes are those of the main table.
  void set_rules(std::vector<KernelRule> rules);
  // Whatever the generations are.
  [[nodiscard]] bool says_the_same_as(const KernelView& other) const {
    return link == other.link && own == other.own && others == other.others && truncated == other.truncated &&
           routes_ == other.routes_ && rules_ == other.rules_;
  }
  // The best one, or null, from `source` (any: it has not been chosen). What a rule may apply to, or may not, is as if it did not.
  [[nodiscard]] const KernelRoute* route_to(const IpAddress& destination, const IpAddress& source = {}) const {
    return choose(destination, source).route;
  }
  [[nodiscard]] const KernelRoute* route_in(std::uint32_t table, const IpAddress& destination) const;
  // It leads through the interface without a doubt, and is no address of the kernel's.
  [[nodiscard]] bool reaches(const IpAddress& destination, const IpAddress& source = {}) const;
  [[nodiscard]] bool owns(const IpAddress& a) const;
  // The address to use towards `destination` by way of `route` for those who have not chosen one; any: none fits.
  [[nodiscard]] IpAddress source_towards(const IpAddress& destination, const KernelRoute& route) const;
  [[nodiscard]] std::span<const KernelRoute> routes() const { return routes_; }
  [[nodiscard]] std::span<const KernelRule> rules() const { return rules_; }

 private:
  struct Choice {
    const KernelRoute* route = nullptr;
    bool certain = true;  // no rule before it may apply or may not
  };
  [[nodiscard]] Choice choose(const IpAddress& destination, const IpAddress& source) const;
  // Routes with the same length of prefix, of one family and table.
  struct Group {
    std::uint32_t table;
    bool v4;
    std::uint8_t length;
    std::size_t begin, end;
  };
  std::vector<KernelRoute> routes_;
  std::vector<Group> groups_;  // of each table, longest first
  std::vector<KernelRule> rules_;
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
