// The kernel as the engine sees it.
#pragma once

#include "intercept/kernel.hh"

namespace mtcp::preload {

// One for the process. No libc wrapper is involved: no errno, and no cancellation inside the engine.
intercept::Kernel* kernel_next();

}  // namespace mtcp::preload
