// [[filter]]: who may open connections to the stack.
#pragma once

#include "conf/problem.hh"
#include "conf/toml.hh"
#include "intercept/options.hh"

namespace mtcp::conf {

// `node` is what stands under "filter".
void read_filter(const toml::node& node, std::vector<stack::FilterRule>& rules, Problems& problems);

// What it may hold, for the reference.
[[nodiscard]] std::string_view filter_reference();

}  // namespace mtcp::conf
