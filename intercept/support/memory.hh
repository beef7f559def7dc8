// When the system has no more memory (RLIMIT_AS, a strict overcommit policy). The engine is built without exceptions, so an
// allocation that fails cannot be reported from where it happens: what a call in progress needs then comes out of a reserve,
// and until there is one again no call begins that makes something new for the application.
#pragma once

#include <cstddef>

namespace mtcp::intercept {

// Whether something new may be made: false is ENOMEM. One load while all is well; else tries to set a reserve aside.
[[nodiscard]] bool memory_to_spare();
// Whether there is that much in one piece, now.
[[nodiscard]] bool memory_available(std::size_t bytes);
// For operator new, when malloc has failed: out of the reserve, or the end of the process with a line that says why.
[[nodiscard]] void* memory_of_last_resort(std::size_t bytes);

}  // namespace mtcp::intercept
