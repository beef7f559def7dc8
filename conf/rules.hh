// [[rule]]: which sockets are the stack's.
#pragma once

#include "conf/problem.hh"
#include "conf/toml.hh"
#include "intercept/options.hh"

namespace mtcp::conf {

// `node` is what stands under "rule". The place of each rule's `to` is noted under rule_key().
void read_rules(const toml::node& node, std::vector<intercept::Rule>& rules, Places& places, Problems& problems);
[[nodiscard]] std::string rule_key(std::size_t index);

// What a rule may hold, for the reference.
[[nodiscard]] std::string_view rules_reference();

}  // namespace mtcp::conf
