// Between text and the values that a configuration has. No function here knows TOML.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "intercept/options.hh"

namespace mtcp::conf {

// "50us", "1.5ms", "60s", "2min". Nothing for anything else.
[[nodiscard]] std::optional<stack::Duration> parse_duration(std::string_view text);
// The largest of those units that divides it.
[[nodiscard]] std::string to_text(stack::Duration d);

// "10.9.0.2" or "fd00::2".
[[nodiscard]] std::optional<stack::IpAddress> parse_address(std::string_view text);
// "10.9.0.0/24"; without "/24" the whole address. The length is of the 128 bits.
[[nodiscard]] std::optional<stack::Prefix> parse_prefix(std::string_view text);
[[nodiscard]] std::string to_text(const stack::IpAddress& a);
[[nodiscard]] std::string to_text(const stack::Prefix& p);
// The address with all bits after the prefix zero.
[[nodiscard]] stack::IpAddress network_of(const stack::Prefix& p);

// "80", "8000-8999".
struct Ports {
  std::uint16_t first, last;
};
[[nodiscard]] std::optional<Ports> parse_ports(std::string_view text);

// How many letters must be inserted, removed, changed or swapped to make one of the other.
[[nodiscard]] std::size_t distance(std::string_view a, std::string_view b);

}  // namespace mtcp::conf
