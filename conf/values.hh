// From a TOML node to the value of a key.
#pragma once

#include <string>

#include "conf/keys.hh"
#include "conf/problem.hh"
#include "conf/toml.hh"

namespace mtcp::conf {

[[nodiscard]] inline Place place_of(const toml::node& n) {
  return {n.source().begin.line, n.source().begin.column};
}

// Stores the value; else says what is wrong and what would be right.
void set(const Key& key, const toml::node& node, Options& options, Problems& problems);

// What a key accepts, in words: for messages and for the reference.
[[nodiscard]] std::string accepted(const Key& key);

// `words` as "a", "b" or "c".
[[nodiscard]] std::string one_of(std::span<const std::string_view> words);

}  // namespace mtcp::conf
