// The text of conf/mtcp.toml: every key with what it does, what it accepts and its default. Made from the
// table.
#pragma once

#include <string>

namespace mtcp::conf {

[[nodiscard]] std::string reference();

}  // namespace mtcp::conf
