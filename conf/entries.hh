// Tables that stand in a list, [[rule]] and [[filter]]: few keys each, none of which has a default of its own.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "conf/problem.hh"
#include "conf/text.hh"
#include "conf/toml.hh"
#include "conf/values.hh"

namespace mtcp::conf {

// One key of such a table: its name, what it accepts, and how it is stored (false: not so).
template <class Item>
struct Entry {
  std::string_view name;
  std::string accepted;
  bool (*store)(const toml::node&, Item&);
};

inline constexpr std::string_view kNetworkAccepted = "an address, or a network without host bits, like \"10.9.0.0/24\"";
inline constexpr std::string_view kPortsAccepted = "a port or a range like \"8000-8999\", from 0 to 65535";

// The index of a word, or the number of words.
template <std::size_t N>
std::size_t index_of(const std::string_view (&words)[N], const toml::node& n) {
  const auto* s = n.as_string();
  std::size_t i = 0;
  while (i < N && (s == nullptr || words[i] != s->get())) ++i;
  return i;
}

[[nodiscard]] std::optional<stack::Prefix> read_network(const toml::node& n);
[[nodiscard]] std::optional<Ports> read_ports(const toml::node& n);

// Reads the entries of a table, called `what`; one that is not known is a problem. Returns whether `wanted` was among them.
// `skipped`: a key that is known, and read elsewhere.
template <class Item>
bool read_entries(const toml::table& table, std::span<const Entry<Item>> entries, Item& item, std::string_view what,
                  std::string_view wanted, std::string_view skipped, Problems& problems) {
  bool found = false;
  for (const auto& [key, node] : table) {
    if (!skipped.empty() && key.str() == skipped) continue;
    const Entry<Item>* entry = nullptr;
    std::string names;
    for (const Entry<Item>& e : entries) {
      if (e.name == key.str()) entry = &e;
      names += (names.empty() ? "" : ", ") + std::string(e.name);
    }
    if (!skipped.empty()) names += ", " + std::string(skipped);
    if (entry == nullptr) {
      problems.add({key.source().begin.line, key.source().begin.column},
                   "unknown key \"" + std::string(key.str()) + "\" in " + std::string(what) + " (there are: " + names + ")");
    } else if (!entry->store(node, item)) {
      problems.add(place_of(node), std::string(entry->name) + ": expected " + entry->accepted);
    }
    found |= key.str() == wanted;
  }
  return found;
}

}  // namespace mtcp::conf
