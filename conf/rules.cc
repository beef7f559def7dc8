#include "conf/rules.hh"

#include "conf/entries.hh"

namespace mtcp::conf {
namespace {

using intercept::Rule;

constexpr std::string_view kRoles[] = {"any", "listen", "connect"};  // in the order of Rule::Role
constexpr std::string_view kTargets[] = {"stack", "kernel"};

bool store_role(const toml::node& n, Rule& r) {
  const std::size_t i = index_of(kRoles, n);
  if (i < std::size(kRoles)) r.role = static_cast<Rule::Role>(i);
  return i < std::size(kRoles);
}

bool store_address(const toml::node& n, Rule& r) {
  const auto network = read_network(n);
  r.has_address = network.has_value();
  if (network) r.address = *network;
  return r.has_address;
}

bool store_port(const toml::node& n, Rule& r) {
  const auto ports = read_ports(n);
  if (!ports) return false;
  r.port_first = ports->first;
  r.port_last = ports->last;
  return true;
}

bool store_program(const toml::node& n, Rule& r) {
  const auto* s = n.as_string();
  if (s == nullptr || s->get().empty()) return false;
  r.program = s->get();
  return true;
}

bool store_target(const toml::node& n, Rule& r) {
  const std::size_t i = index_of(kTargets, n);
  r.to_stack = i == 0;
  return i < std::size(kTargets);
}

void read_rule(const toml::table& table, Rule& rule, Problems& problems) {
  const Entry<Rule> match_entries[] = {
      {"role", one_of(kRoles), store_role},
      {"address", std::string(kNetworkAccepted), store_address},
      {"port", std::string(kPortsAccepted), store_port},
      {"program", "the name of a program, or its path; * and ? match", store_program},
  };
  const Entry<Rule> entries[] = {{"to", one_of(kTargets), store_target}};
  if (!read_entries<Rule>(table, entries, rule, "a rule", "to", "match", problems)) {
    problems.add(place_of(table), "this rule does not say where to: expected to = " + one_of(kTargets));
  }
  const toml::node* match = table.get("match");
  if (match == nullptr) return;
  if (!match->is_table()) {
    problems.add(place_of(*match),
                 "match: expected a table like { role = \"listen\", port = \"8000-8999\" }");
    return;
  }
  read_entries<Rule>(*match->as_table(), match_entries, rule, "a rule", {}, {}, problems);
}

}  // namespace

void read_rules(const toml::node& node, std::vector<Rule>& rules, Places& places, Problems& problems) {
  const auto* list = node.as_array();
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    if (const auto* table = list->get(i)->as_table()) {
      if (const toml::node* to = table->get("to"); to != nullptr) places.emplace(rule_key(i), place_of(*to));
      read_rule(*table, rules.emplace_back(), problems);
    } else {
      list = nullptr;
    }
  }
  if (list == nullptr)
    problems.add(place_of(node), "rules are written as [[rule]], each in brackets of its own");
}

std::string rule_key(std::size_t index) { return "rule." + std::to_string(index) + ".to"; }

std::string_view rules_reference() {
  return R"(# Rules: the first that matches decides. Without a match, a socket is the stack's if it listens on the stack's address
# or on the wildcard, or connects to a network of [interface] or through its gateway.
#   match.role     "listen", "connect" or "any"
#   match.address  an address or a network: of listen the local one, of connect the remote one
#   match.port     a port or a range: likewise
#   match.program  the program's name, or its path if it has a slash; * and ? match. It may be the name by which it was
#                  called (also if that is a link), that of the script, or the one that ps -o comm shows
#   to             "stack" or "kernel"
#
# [[rule]]
# match = { role = "listen", address = "10.9.0.0/24", port = "8000-8999", program = "nginx" }
# to = "stack"
)";
}

}  // namespace mtcp::conf
