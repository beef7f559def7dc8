// Programs and libraries that make their system calls themselves: Go's.
#pragma once

namespace mtcp::preload {

// A warning, once, if the process has a configuration and code that was compiled by Go in it.
void warn_of_go();

}  // namespace mtcp::preload
