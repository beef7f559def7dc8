#include "conf/values.hh"

#include <algorithm>

#include "conf/text.hh"

namespace mtcp::conf {
namespace {

using stack::Duration;

std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }

// What stands in the file, for a message.
std::string shown(const toml::node& n) {
  if (const auto* s = n.as_string()) return quoted(s->get());
  if (const auto* i = n.as_integer()) return std::to_string(i->get());
  if (const auto* b = n.as_boolean()) return b->get() ? "true" : "false";
  if (n.is_floating_point()) return "a number with a fraction";
  if (n.is_array()) return "a list";
  if (n.is_table()) return "a table";
  return "a date or time";
}

struct Wrong {
  std::string why;  // empty: it is not what the key accepts
  const toml::node* where = nullptr;
};
using Verdict = std::optional<Wrong>;  // nothing: fine

// Calls f(text, node) for a string or for each string of a list.
template <class F>
Verdict for_each_text(const toml::node& n, F f) {
  if (const auto* s = n.as_string()) return f(s->get(), n);
  const auto* list = n.as_array();
  if (list == nullptr) return Wrong{};
  for (const toml::node& element : *list) {
    const auto* s = element.as_string();
    if (s == nullptr) return Wrong{.why = {}, .where = &element};
    if (Verdict v = f(s->get(), element)) return v;
  }
  return {};
}

// The numbers of a list of exactly n whole numbers.
std::optional<std::vector<std::int64_t>> numbers(const toml::node& node, std::size_t n) {
  const auto* list = node.as_array();
  if (list == nullptr || list->size() != n) return {};
  std::vector<std::int64_t> result;
  for (const toml::node& element : *list) {
    const auto* i = element.as_integer();
    if (i == nullptr) return {};
    result.push_back(i->get());
  }
  return result;
}

Verdict store(const Flag& t, const toml::node& n, Options& o) {
  const auto* b = n.as_boolean();
  if (b == nullptr) return Wrong{};
  t.at(o) = b->get();
  return {};
}

Verdict store(const Count& t, const toml::node& n, Options& o) {
  if (const auto* s = n.as_string(); s != nullptr && t.automatic && s->get() == "auto") {
    t.at(o) = 0;
    return {};
  }
  const auto* i = n.as_integer();
  if (i == nullptr || i->get() < t.low || i->get() > t.high) return Wrong{};
  t.at(o) = static_cast<std::uint32_t>(i->get());
  return {};
}

Verdict store(const Span& t, const toml::node& n, Options& o) {
  std::optional<Duration> d;
  if (const auto* s = n.as_string()) d = parse_duration(s->get());
  if (const auto* i = n.as_integer(); i != nullptr && i->get() >= 0 && i->get() <= t.high / t.unit)
    d = i->get() * t.unit;
  if (!d || *d < t.low || *d > t.high) return Wrong{};
  t.at(o) = *d;
  return {};
}

Verdict store(const Text& t, const toml::node& n, Options& o) {
  const auto* s = n.as_string();
  if (s == nullptr || s->get().empty()) return Wrong{};
  if (std::ranges::any_of(s->get(), [](char c) { return static_cast<unsigned char>(c) < ' '; })) {
    return Wrong{.why = "a control character has no place here"};
  }
  t.at(o) = s->get();
  return {};
}

Verdict store(const Choice& t, const toml::node& n, Options& o) {
  const auto* s = n.as_string();
  if (s == nullptr) return Wrong{};
  const auto word = std::ranges::find(t.words, std::string_view(s->get()));
  if (word == t.words.end()) return Wrong{};
  t.set(o, static_cast<std::size_t>(word - t.words.begin()));
  return {};
}

Verdict store(const Sizes& t, const toml::node& n, Options& o) {
  const auto v = numbers(n, 3);
  if (!v) return Wrong{};
  for (const std::int64_t size : *v) {
    if (size < t.low || size > t.high) return Wrong{};
  }
  if (!std::ranges::is_sorted(*v)) return Wrong{.why = "min, default and max must not descend"};
  t.at(o) = {static_cast<std::uint32_t>((*v)[0]), static_cast<std::uint32_t>((*v)[1]),
             static_cast<std::uint32_t>((*v)[2])};
  return {};
}

Verdict store(const Levels& t, const toml::node& n, Options& o) {
  if (const auto* s = n.as_string(); s != nullptr && s->get() == "auto") {
    t.at(o) = {};
    return {};
  }
  const auto v = numbers(n, 3);
  if (!v) return Wrong{};
  for (const std::int64_t level : *v) {
    if (level < static_cast<std::int64_t>(t.low) || level > static_cast<std::int64_t>(t.high)) return Wrong{};
  }
  if (!std::ranges::is_sorted(*v)) return Wrong{.why = "low, pressure and high must not descend"};
  t.at(o) = {static_cast<std::uint64_t>((*v)[0]), static_cast<std::uint64_t>((*v)[1]),
             static_cast<std::uint64_t>((*v)[2])};
  return {};
}

Verdict store(const PortRange& t, const toml::node& n, Options& o) {
  const auto v = numbers(n, 2);
  if (!v || (*v)[0] < 1 || (*v)[1] > 65535 || (*v)[0] > (*v)[1]) return Wrong{};
  t.first(o) = static_cast<std::uint16_t>((*v)[0]);
  t.last(o) = static_cast<std::uint16_t>((*v)[1]);
  return {};
}

// Why an address cannot be one of the stack's; empty if it can.
std::string unfit(const stack::Prefix& p) {
  if (p.address.is_loopback()) return "a loopback address is the stack's by [stack] loopback = true";
  const bool v4 = p.address.is_v4();
  const unsigned first = v4 ? p.address.bytes[12] : p.address.bytes[0];
  const bool group = v4 ? first >= 224 : first == 0xff;
  if (p.address.is_any() || group || (v4 && first == 0)) return "this is not the address of a host";
  if (!v4 || p.length > 126) return {};
  stack::Prefix network = p;
  network.address = network_of(p);
  if (network.address == p.address)
    return "this is the network " + to_text(network) + ", not an address in it";
  const std::uint32_t rest = (1U << (128 - p.length)) - 1;
  if ((p.address.as_v4() & rest) == rest) return "this is the broadcast address of " + to_text(network);
  return {};
}

Verdict store(const Addresses& t, const toml::node& n, Options& o) {
  auto& list = t.at(o);
  list.clear();
  const auto* word = n.as_string();
  t.kernel(o) = word != nullptr && word->get() == "kernel";
  if (t.kernel(o)) return {};
  return for_each_text(n, [&](const std::string& s, const toml::node& where) -> Verdict {
    const auto p = parse_prefix(s);
    if (!p || s.find('/') == std::string::npos) return Wrong{.why = {}, .where = &where};
    if (p->length == (p->address.is_v4() ? 96 : 0))
      return Wrong{.why = "a prefix length of 0 leaves no network", .where = &where};
    if (const std::string why = unfit(*p); !why.empty()) return Wrong{.why = why, .where = &where};
    for (const auto& other : list) {
      if (other.address == p->address)
        return Wrong{.why = "this address is already in the list", .where = &where};
    }
    list.push_back({p->address, p->length});
    return {};
  });
}

Verdict store(const Gateways& t, const toml::node& n, Options& o) {
  auto& list = t.at(o);
  list.clear();
  return for_each_text(n, [&](const std::string& s, const toml::node& where) -> Verdict {
    const auto a = parse_address(s);
    if (!a) return Wrong{.why = {}, .where = &where};
    if (std::ranges::find(list, *a) != list.end()) {
      return Wrong{.why = "this gateway is already in the list", .where = &where};
    }
    list.push_back(*a);
    return {};
  });
}

Verdict store(const Users& t, const toml::node& n, Options& o) {
  auto& list = t.at(o);
  list.clear();
  const auto take = [&](const toml::node& where) -> Verdict {
    const auto* i = where.as_integer();
    if (i == nullptr || i->get() < 0 || i->get() >= UINT32_MAX) return Wrong{.why = {}, .where = &where};
    list.push_back(static_cast<std::uint32_t>(i->get()));
    return {};
  };
  const auto* several = n.as_array();
  if (several == nullptr) return take(n);
  for (const toml::node& element : *several)
    if (Verdict v = take(element)) return v;
  return {};
}

std::string words_for(const Flag&) { return "true or false"; }
std::string words_for(const Count& t) {
  return (t.automatic ? "\"auto\" or a" : "a") + std::string(" whole number from ") + std::to_string(t.low) +
         " to " + std::to_string(t.high);
}
std::string words_for(const Span& t) {
  return "a time like " + quoted(to_text(std::clamp(100 * t.unit, t.low, t.high))) +
         " (us, ms, s, min) from " + (t.low.count() == 0 ? "0" : to_text(t.low)) + " to " + to_text(t.high);
}
std::string words_for(const Text&) { return "a text"; }
std::string words_for(const Choice& t) { return one_of(t.words); }
std::string words_for(const Sizes& t) {
  return "[min, default, max] in bytes, ascending, each from " + std::to_string(t.low) + " to " +
         std::to_string(t.high);
}
std::string words_for(const Levels& t) {
  return "\"auto\" or [low, pressure, high] in bytes, ascending, each from " + std::to_string(t.low) + " to " +
         std::to_string(t.high);
}
std::string words_for(const PortRange&) { return "[first, last], ascending, each from 1 to 65535"; }
std::string words_for(const Addresses&) {
  return "an address with its prefix length, like \"10.9.0.2/24\", a list of such, or \"kernel\"";
}
std::string words_for(const Users&) { return "the number of a user, like 33, or a list of such"; }
std::string words_for(const Gateways&) { return "an address like \"10.9.0.1\", or a list of such"; }

}  // namespace

void set(const Key& key, const toml::node& node, Options& options, Problems& problems) {
  const Verdict wrong = std::visit([&](const auto& type) { return store(type, node, options); }, key.type);
  if (!wrong) return;
  const toml::node& at = wrong->where != nullptr ? *wrong->where : node;
  std::string text = std::string(key.name) + " = " + shown(at) + ": ";
  text += wrong->why.empty() ? "expected " + accepted(key) : wrong->why;
  problems.add(place_of(at), std::move(text));
}

std::string accepted(const Key& key) {
  return std::visit([](const auto& type) { return words_for(type); }, key.type);
}

std::string one_of(std::span<const std::string_view> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += quoted(words[i]);
  }
  return words.size() == 1 ? text + " (the only one there is so far)" : text;
}

}  // namespace mtcp::conf
