#include "conf/reference.hh"

#include "conf/filter.hh"
#include "conf/keys.hh"
#include "conf/rules.hh"
#include "conf/text.hh"
#include "conf/values.hh"

namespace mtcp::conf {
namespace {

std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }

// The default of a key as it would be written.
std::string default_of(const Flag& t, Options& o) { return t.at(o) ? "true" : "false"; }
std::string default_of(const Count& t, Options& o) {
  return t.automatic && t.at(o) == 0 ? "\"auto\"" : std::to_string(t.at(o));
}
std::string default_of(const Span& t, Options& o) { return quoted(to_text(t.at(o))); }
std::string default_of(const Text& t, Options& o) { return quoted(t.at(o)); }
std::string default_of(const Choice& t, Options& o) { return quoted(t.words[t.get(o)]); }
std::string default_of(const Sizes& t, Options& o) {
  const auto& s = t.at(o);
  return "[" + std::to_string(s.min) + ", " + std::to_string(s.initial) + ", " + std::to_string(s.max) + "]";
}
std::string default_of(const Levels& t, Options& o) {
  const auto& l = t.at(o);
  if (l.high == 0) return "\"auto\"";
  return "[" + std::to_string(l.low) + ", " + std::to_string(l.pressure) + ", " + std::to_string(l.high) + "]";
}
std::string default_of(const PortRange& t, Options& o) {
  return "[" + std::to_string(t.first(o)) + ", " + std::to_string(t.last(o)) + "]";
}
std::string default_of(const Addresses&, Options&) { return "[]"; }
std::string default_of(const Gateways&, Options&) { return "[]"; }
std::string default_of(const Users&, Options&) { return "[]"; }

std::string commented(std::string_view text) {
  std::string result = "# ";
  for (const char c : text) {
    result += c;
    if (c == '\n') result += "# ";
  }
  return result + "\n";
}

std::string entry(const Key& key) {
  Options defaults;
  const std::string value =
      std::visit([&](const auto& type) { return default_of(type, defaults); }, key.type);
  std::string text = commented(key.doc) + commented("Accepts " + accepted(key) + ".");
  if (key.example.empty()) return text + "#" + std::string(key.name) + " = " + value + "\n\n";
  const bool is_text = std::holds_alternative<Text>(key.type);
  const std::string example = is_text ? quoted(key.example) : std::string(key.example);
  return text + "# No default.\n#" + std::string(key.name) + " = " + example + "\n\n";
}

}  // namespace

std::string reference() {
  std::string text =
      "# Every key of mtcp's configuration, at its default. This file is made from conf/keys.cc\n"
      "# (ninja -C build conf-reference); copy what you need. conf/README.md says how a configuration is "
      "found.\n"
      "# A key has the kernel's name and unit where the kernel has the thing; a time may always be written "
      "with its unit.\n";
  std::string_view section;
  for (const Key& key : keys()) {
    if (key.section != section) {
      section = key.section;
      text += "\n[" + std::string(section) + "]\n\n";
    }
    text += entry(key);
  }
  return text + "\n" + std::string(rules_reference()) + "\n" + std::string(filter_reference());
}

}  // namespace mtcp::conf
