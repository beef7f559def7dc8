#include "conf/load.hh"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "conf/check.hh"
#include "conf/filter.hh"
#include "conf/keys.hh"
#include "conf/rules.hh"
#include "conf/text.hh"
#include "conf/toml.hh"
#include "conf/values.hh"

namespace mtcp::conf {
namespace {

constexpr const char* kSystemFile = "/etc/mtcp/mtcp.toml";
constexpr std::size_t kLargest = 1 << 20, kPart = 1 << 14;  // bytes; a configuration is a few hundred
constexpr std::string_view kRule = "rule", kFilter = "filter";

// The file's text, or nothing with errno set.
std::optional<std::string> read_file(const std::string& path) {
  FILE* f = fopen(path.c_str(), "re");
  if (f == nullptr) return std::nullopt;
  std::string text;
  errno = 0;
  for (std::size_t n = kPart; n == kPart && text.size() <= kLargest;) {
    const std::size_t had = text.size();
    text.resize(had + kPart);
    n = fread(text.data() + had, 1, kPart, f);
    text.resize(had + n);
  }
  const int error = ferror(f) != 0 ? errno : text.size() > kLargest ? EFBIG : 0;
  fclose(f);
  errno = error;
  if (error != 0) return std::nullopt;
  return text;
}

bool is_section(std::string_view name) {
  if (name == kRule || name == kFilter) return true;
  for (const Key& k : keys()) {
    if (k.section == name) return true;
  }
  return false;
}

// The known word nearest to a mistyped one, as " (did you mean ...?)"; nothing if none is near.
std::string near_section(std::string_view name) {
  std::string_view best = distance(name, kFilter) < distance(name, kRule) ? kFilter : kRule;
  for (const Key& k : keys()) {
    if (distance(name, k.section) < distance(name, best)) best = k.section;
  }
  if (distance(name, best) > 2) {
    std::string all;
    for (const Key& k : keys()) {
      if (all.find("[" + std::string(k.section) + "]") == std::string::npos)
        all += "[" + std::string(k.section) + "], ";
    }
    return " (there are: " + all + "[[rule]], [[filter]])";
  }
  return " (did you mean \"" + std::string(best) + "\"?)";
}

std::string near_key(std::string_view section, std::string_view name) {
  std::string_view plain = name;  // as sysctl has it
  for (const std::string_view prefix : {"net.ipv4.", "tcp_"}) {
    if (plain.starts_with(prefix)) plain.remove_prefix(prefix.size());
  }
  const Key* best = nullptr;
  const auto cost = [&](const Key& k) {
    return 2 * distance(plain, k.name) + (k.section == section ? 0 : 1);
  };
  for (const Key& k : keys()) {
    if (best == nullptr || cost(k) < cost(*best)) best = &k;
  }
  if (best == nullptr || distance(plain, best->name) > std::min<std::size_t>(3, plain.size() / 2)) return {};
  const std::string where = best->section == section ? "" : " in [" + std::string(best->section) + "]";
  return " (did you mean \"" + std::string(best->name) + "\"" + where + "?)";
}

class Loader {
 public:
  Loader(Options& options, Problems& problems) : options_(options), problems_(problems) {}

  void run(const toml::table& file) {
    for (const auto& [key, node] : file) {
      const std::string_view name = key.str();
      if (name == kRule) {
        read_rules(node, options_.rules, places_, problems_);
      } else if (name == kFilter) {
        read_filter(node, options_.stack.filter, problems_);
      } else if (!is_section(name)) {
        const std::string what =
            node.is_table() || node.is_array_of_tables() ? "unknown section [" + std::string(name) + "]" + near_section(name)
                            : "key \"" + std::string(name) + "\" outside of a section" + near_key({}, name);
        problems_.add(place_of(key), what);
      } else if (const auto* section = node.as_table()) {
        read_section(name, *section);
      } else {
        problems_.add(place_of(node),
                      std::string(name) + " is a section: expected [" + std::string(name) + "]");
      }
    }
    // What is shared with the kernel has the kernel's addresses.
    if (!places_.contains("interface.address") && options_.device.is_shared_with_kernel())
      options_.stack.interface.from_kernel = true;
    check(options_, places_, wrong_, problems_);
  }

 private:
  static Place place_of(const toml::key& k) { return {k.source().begin.line, k.source().begin.column}; }
  static Place place_of(const toml::node& n) { return conf::place_of(n); }

  void read_section(std::string_view section, const toml::table& table) {
    for (const auto& [name, node] : table) {
      const Key* key = find_key(section, name.str());
      if (key == nullptr) {
        problems_.add(place_of(name), "unknown key \"" + std::string(name.str()) + "\" in [" +
                                          std::string(section) + "]" + near_key(section, name.str()));
        continue;
      }
      places_.emplace(std::string(section) + "." + std::string(name.str()), place_of(node));
      const std::size_t before = problems_.count();
      set(*key, node, options_, problems_);
      if (problems_.count() > before) wrong_.insert(std::string(section) + "." + std::string(name.str()));
    }
  }

  Options& options_;
  Problems& problems_;
  Places places_;
  WrongKeys wrong_;
};

std::string_view line_of(std::string_view text, std::uint32_t number) {
  for (; number > 1; --number) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  return text.substr(0, text.find('\n'));
}

// port = net_af_packet0,iface=eth1: the commonest mistake, of which the parser says only which character it cannot take.
std::string unquoted(std::string_view line) {
  const std::size_t equals = line.find('=');
  if (equals == line.npos) return {};
  const auto trimmed = [](std::string_view s) {
    while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
    while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
    return std::string(s);
  };
  const std::string key = trimmed(line.substr(0, equals));
  const std::string value = trimmed(line.substr(equals + 1, line.find('#', equals) - equals - 1));
  if (key.empty() || value.empty() || std::string_view("\"'[{").find(value.front()) != std::string_view::npos) return {};
  return key + " = " + value + ": a text is written in quotes: " + key + " = \"" + value + "\"";
}

}  // namespace

LoadError load(const std::string& path, intercept::Options& options) {
  const auto text = read_file(path);
  if (!text) {
    const std::string message = path + ": cannot be read: " + strerror(errno);
    return {.failed = true, .message = message, .all = {message}};
  }
  Problems problems;
  const toml::parse_result file = toml::parse(*text, path);
  if (!file) {
    const auto& at = file.error().source().begin;
    const std::string hint = at.line > 0 ? unquoted(line_of(*text, at.line)) : "";
    problems.add({at.line, at.column}, hint.empty() ? std::string(file.error().description()) : hint);
  } else {
    Loader(options, problems).run(file.table());
  }
  options.source = path;
  if (problems.none()) return {};
  std::vector<std::string> all = problems.all(path);
  std::string message = all.front();
  if (all.size() > 1) message += " (and " + std::to_string(all.size() - 1) + " more; mtcp-run -n shows all)";
  return {.failed = true, .message = std::move(message), .all = std::move(all)};
}

std::string find() {
  const char* named = secure_getenv("MTCP_CONF");
  if (named != nullptr && *named != '\0') return named;
  return access(kSystemFile, R_OK) == 0 ? kSystemFile : "";
}

}  // namespace mtcp::conf
