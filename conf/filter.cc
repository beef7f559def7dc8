#include "conf/filter.hh"

#include <algorithm>

#include "conf/entries.hh"

namespace mtcp::conf {
namespace {

using stack::FilterRule;

constexpr std::string_view kActions[] = {"accept", "drop", "reset"};  // in the order of FilterRule::Action
constexpr std::int64_t kMostPerSecond = 1000000;
constexpr std::size_t kMostRules = 1024;  // each new connection looks at them one after the other

bool store_source(const toml::node& n, FilterRule& r) {
  const auto network = read_network(n);
  if (network) r.source = *network;
  return network.has_value();
}

bool store_port(const toml::node& n, FilterRule& r) {
  const auto ports = read_ports(n);
  if (!ports) return false;
  r.port_first = ports->first;
  r.port_last = ports->last;
  return true;
}

bool store_action(const toml::node& n, FilterRule& r) {
  const std::size_t i = index_of(kActions, n);
  if (i < std::size(kActions)) r.action = static_cast<FilterRule::Action>(i);
  return i < std::size(kActions);
}

bool store_rate(const toml::node& n, FilterRule& r) {
  const auto* i = n.as_integer();
  if (i == nullptr || i->get() < 1 || i->get() > kMostPerSecond) return false;
  r.rate = static_cast<std::uint32_t>(i->get());
  return true;
}

bool covers(const FilterRule& a, const FilterRule& b) {
  return a.port_first <= b.port_first && a.port_last >= b.port_last && a.source.length <= b.source.length &&
         a.source.contains(b.source.address);
}

void read_one(const toml::table& table, std::vector<FilterRule>& rules, Problems& problems) {
  static const Entry<FilterRule> kEntries[] = {
      {"source", std::string(kNetworkAccepted), store_source},
      {"port", std::string(kPortsAccepted), store_port},
      {"action", one_of(kActions), store_action},
      {"rate", "a whole number from 1 to " + std::to_string(kMostPerSecond) + ": new connections a second of each source", store_rate},
  };
  FilterRule rule;
  const std::size_t before = problems.count();
  const bool acts = read_entries<FilterRule>(table, kEntries, rule, "a filter", "action", {}, problems);
  if (!acts) problems.add(place_of(table), "this filter does not say what to do: expected action = " + one_of(kActions));
  if (rule.rate != 0 && rule.action != FilterRule::Action::accept)
    problems.add(place_of(*table.get("rate")), "rate: only a filter that accepts has one");
  const bool sound = problems.count() == before;
  if (sound && std::ranges::any_of(rules, [&](const FilterRule& earlier) { return covers(earlier, rule); }))
    problems.add(place_of(table), "this filter never takes effect: an earlier one matches all that it does");
  if (sound) rules.push_back(rule);
}

}  // namespace

void read_filter(const toml::node& node, std::vector<FilterRule>& rules, Problems& problems) {
  const auto* list = node.as_array();
  if (list != nullptr && list->size() > kMostRules)
    return problems.add(place_of(node), "there can be " + std::to_string(kMostRules) + " filters at most");
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    if (const auto* table = list->get(i)->as_table())
      read_one(*table, rules, problems);
    else
      list = nullptr;
  }
  if (list == nullptr) problems.add(place_of(node), "filters are written as [[filter]], each in brackets of its own");
}

std::string_view filter_reference() {
  return R"(# Filters: who may open connections to the stack, whose packets pass no netfilter (iptables, nftables). The first that
# matches decides; without a match a connection is accepted. Connections that are there go on, and those from this machine are
# not asked. The file is looked at once a second: what is changed here takes effect while the programs run (all else when
# they start). Each stack (worker) counts by itself: of several a source gets up to so many times the rate.
#   source   the peer's address, or its network; default: any
#   port     the local port or a range; default: all
#   action   "accept", "drop" (no answer) or "reset" (as if nothing listened)
#   rate     of "accept": new connections a second of each source (an IPv4 address, or the first 64 bits of an IPv6 one), and as
#            many at once; what is beyond gets no answer and tries again
#
# [[filter]]
# source = "10.9.0.0/24"
# port = 22
# action = "accept"
#
# [[filter]]
# port = 22
# action = "drop"
#
# [[filter]]
# port = "80-443"
# action = "accept"
# rate = 100
)";
}

}  // namespace mtcp::conf
