// What is wrong with a configuration, and where.
#pragma once

#include <cstdint>
#include <map>
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
  // "file:line:column: text" of the one that comes first in the file.
  [[nodiscard]] std::string first(const std::string& file) const {
    const Problem* best = found_.data();
    for (const Problem& p : found_) {
      if (p.place < best->place) best = &p;
    }
    return file + ":" + std::to_string(best->place.line) + ":" + std::to_string(best->place.column) + ": " +
           best->text;
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

}  // namespace mtcp::conf
