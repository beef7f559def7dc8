// What no single key can tell: whether the values agree.
#pragma once

#include "conf/problem.hh"
#include "intercept/options.hh"

namespace mtcp::conf {

// `wrong`: keys that have been reported already; what depends on them is not looked at.
void check(const intercept::Options& options, const Places& places, const WrongKeys& wrong, Problems& problems);

}  // namespace mtcp::conf
