// The socket options that the stack itself honours, one row each; what becomes of the others is in sockopt_kinds.cc. Options whose value is not an
// int (SO_LINGER, timeouts, TCP_INFO, ...) are in sockopt.cc.
#pragma once

#include <cstdint>

#include "intercept/descriptors/socket.hh"
#include "intercept/options.hh"

namespace mtcp::intercept {

struct OptionRow {
  int level;
  int name;
  // The value as getsockopt has it. Null: it can't be read.
  int (*get)(const Socket&, const Options&);
  // Takes a value as setsockopt has it; 0 or -errno. Null: the option can't be set (-ENOPROTOOPT).
  int (*set)(Socket&, const Options&, int value);
  // The value to replay into the kernel socket, when it is not what get() says; null: get().
  int (*replay)(const Socket&, const Options&);
};

// Null for an option that has no row. `index` is its bit in Socket::unreplayed.
const OptionRow* find_option(int level, int name, unsigned& index);
const OptionRow& option_row(unsigned index);
[[nodiscard]] unsigned option_rows();

}  // namespace mtcp::intercept
