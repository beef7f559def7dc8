// A number on a command line.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>

namespace mtcp::perf {

// Nothing if `text` is no such number, or not from `low` to `high`.
template <class T>
[[nodiscard]] std::optional<T> number(std::string_view text, T low, T high) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= low && value <= high)) return {};
  return value;
}

}  // namespace mtcp::perf
