// What is wrong with a configuration, and where.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mtcp::conf {

struct Place {
  std::uint32_t line = 1, column = 1;
  friend auto operator<=>(const Place&, const Place&) = default;
};

class Problems {
 public:
  void add(Place place, std::string text) { found_.push_back({place, std::move(text)}); }
  [[nodiscard]] bool none() const { return found_.empty(); }
  [[nodiscard]] std::size_t count() const { return found_.size(); }
  // "file:line:column: text" of each, in the order of the file.
  [[nodiscard]] std::vector<std::string> all(const std::string& file) const {
    std::vector<Problem> sorted = found_;
    std::ranges::stable_sort(sorted, {}, &Problem::place);
    std::vector<std::string> texts;
    for (const Problem& p : sorted)
      texts.push_back(file + ":" + std::to_string(p.place.line) + ":" + std::to_string(p.place.column) + ": " + p.text);
    return texts;
  }

 private:
  struct Problem {
    Place place;
    std::string text;
  };
  std::vector<Problem> found_;
};

// Where each key that the file sets has its value, as "section.name".
using Places = std::map<std::string, Place>;
// Those of them whose value is wrong, so that nothing follows from it.
using WrongKeys = std::set<std::string, std::less<>>;

}  // namespace mtcp::conf
