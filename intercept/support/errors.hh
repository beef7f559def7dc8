// The one place where the stack's reasons become errno values.
#pragma once

#include "stack/base/errc.hh"

namespace mtcp::intercept {

// A positive errno; 0 for ok.
[[nodiscard]] int to_errno(stack::Errc e);

}  // namespace mtcp::intercept
