// What no single key can tell: whether the values agree.
#pragma once

#include "conf/problem.hh"
#include "intercept/options.hh"

namespace mtcp::conf {

void check(const intercept::Options& options, const Places& places, Problems& problems);

}  // namespace mtcp::conf
