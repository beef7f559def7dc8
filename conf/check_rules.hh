// Whether a rule that sends something to the stack can be honoured there.
#pragma once

#include <string>

#include "intercept/options.hh"

namespace mtcp::conf {

// Why a rule to the stack can never take effect, or empty.
[[nodiscard]] std::string why_impossible(const intercept::Rule& rule, const intercept::Options& options);

}  // namespace mtcp::conf
