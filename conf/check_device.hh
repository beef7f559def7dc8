// What can be told of [device] without looking at a device.
#pragma once

#include "conf/problem.hh"
#include "intercept/options.hh"

namespace mtcp::conf {

void check_device(const intercept::Options& options, const Places& places, Problems& problems);

}  // namespace mtcp::conf
