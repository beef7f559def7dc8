// Why bytes from the wire were not accepted.
#pragma once

#include <cstdint>

namespace mtcp::stack {

enum class ParseError : std::uint8_t {
  none,
  too_short,     // ends before the header does
  bad_header,    // a field contradicts another one or the protocol
  bad_checksum,  //
};

}  // namespace mtcp::stack
