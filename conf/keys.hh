// Every key of the configuration, once: what it is called, what it accepts, where it goes and what it does.
// Loading, checking, messages and the reference file (conf/mtcp.toml) all come from this table; defaults are
// those of the option structs themselves.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "intercept/options.hh"

namespace mtcp::conf {

using intercept::Options;

// true or false
struct Flag {
  bool& (*at)(Options&);
};
// A whole number from low to high; with `automatic`, also "auto", which is stored as 0.
struct Count {
  std::uint32_t& (*at)(Options&);
  std::uint32_t low, high;
  bool automatic = false;
};
// "50us", "40ms", "60s", "2min", or a plain number in `unit`: the kernel's own for this key.
struct Span {
  stack::Duration& (*at)(Options&);
  stack::Duration low, high;
  stack::Duration unit;
};
struct Text {
  std::string& (*at)(Options&);
};
// One of a few words; stored as their index.
struct Choice {
  std::span<const std::string_view> words;
  std::size_t (*get)(const Options&);
  void (*set)(Options&, std::size_t);
};
// [min, default, max] in bytes, ascending
struct Sizes {
  stack::BufferSizes& (*at)(Options&);
  std::uint32_t low, high;
};
// [low, pressure, high] in bytes, ascending, or "auto", which is stored as zeros
struct Levels {
  stack::MemoryLevels& (*at)(Options&);
  std::uint64_t low, high;
};
// [first, last]
struct PortRange {
  std::uint16_t& (*first)(Options&);
  std::uint16_t& (*last)(Options&);
};
// "10.9.0.2/24", or a list of such, or "kernel"
struct Addresses {
  std::vector<stack::InterfaceOptions::Address>& (*at)(Options&);
  bool& (*kernel)(Options&);
};
// "10.9.0.1", or a list of such
struct Gateways {
  std::vector<stack::IpAddress>& (*at)(Options&);
};
// A number, or a list of such
struct Users {
  std::vector<std::uint32_t>& (*at)(Options&);
};

struct Key {
  std::string_view section, name;
  std::variant<Flag, Count, Span, Text, Choice, Sizes, Levels, PortRange, Addresses, Gateways, Users> type;
  std::string_view example;  // for the reference where the default says little; empty: the default
  std::string_view doc;      // lines of the reference
};

// In the order of the reference file; keys of a section lie together.
[[nodiscard]] std::span<const Key> keys();
[[nodiscard]] const Key* find_key(std::string_view section, std::string_view name);

}  // namespace mtcp::conf
