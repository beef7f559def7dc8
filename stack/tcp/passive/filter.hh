// [[filter]]: which peers may open connections to which ports, since no packet of the stack passes the kernel's netfilter.
// It is asked about what would begin something; connections that are there go on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/base/siphash.hh"
#include "stack/base/time.hh"
#include "stack/options.hh"

namespace mtcp::stack {

// New connections per source: a table of fixed size, so that a flood from many addresses takes no memory. A source is an IPv4
// address, or the /64 of an IPv6 one. When its set of the table is full, the source that has used least of its rate is forgotten.
class SourceRates {
 public:
  explicit SourceRates(SipKey key) : key_(key) {}
  // True if the rule's `rate` per second (and as many at once) has room for one more.
  [[nodiscard]] bool take(std::uint32_t rule, std::uint32_t rate, const IpAddress& source, Time now);
  void clear() { sources_.reset(); }

 private:
  static constexpr std::size_t kSets = 4096, kWays = 4;
  struct Source {
    std::uint64_t tag = 0;  // a keyed hash of rule and source
    Time used_until{};      // when all that it has used is there again
  };
  using Set = std::array<Source, kWays>;
  struct Table {
    std::array<Set, kSets> sets;
  };
  SipKey key_;
  std::unique_ptr<Table> sources_;  // made with the first rate that is looked at
};

class Filter {
 public:
  Filter(std::span<const FilterRule> rules, SipKey key) : rules_(rules.begin(), rules.end()), rates_(key) {}
  void set(std::span<const FilterRule> rules) {
    rules_.assign(rules.begin(), rules.end());
    rates_.clear();
  }

  [[nodiscard]] bool empty() const { return rules_.empty(); }
  // The first rule that matches; null: none, which accepts.
  [[nodiscard]] const FilterRule* find(const IpAddress& source, std::uint16_t local_port) const;
  // A new connection under `rule` is within its rate.
  [[nodiscard]] bool take(const FilterRule& rule, const IpAddress& source, Time now) {
    return rule.rate == 0 || rates_.take(static_cast<std::uint32_t>(&rule - rules_.data()), rule.rate, source, now);
  }

 private:
  std::vector<FilterRule> rules_;
  SourceRates rates_;
};

}  // namespace mtcp::stack
