#include "conf/text.hh"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <vector>

namespace mtcp::conf {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t nanoseconds;
};
// The longest first.
constexpr Unit kUnits[] = {{"min", 60'000'000'000}, {"s", 1'000'000'000}, {"ms", 1'000'000}, {"us", 1'000}};

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<stack::Duration> parse_duration(std::string_view text) {
  const std::size_t digits = text.find_first_not_of("0123456789.");
  if (digits == 0 || digits == std::string_view::npos) return std::nullopt;
  const auto value = parse_number<double>(text.substr(0, digits));
  text.remove_prefix(digits);
  if (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  const auto* const unit = std::ranges::find(kUnits, text, &Unit::name);
  if (!value || unit == std::end(kUnits)) return std::nullopt;
  const double nanoseconds = *value * static_cast<double>(unit->nanoseconds);
  if (nanoseconds > 9e18) return std::nullopt;
  return stack::Duration(static_cast<std::int64_t>(nanoseconds + 0.5));
}

std::string to_text(stack::Duration d) {
  for (const Unit& u : kUnits) {
    if (d.count() != 0 && d.count() % u.nanoseconds == 0 &&
        (u.name != "min" || d.count() >= 10 * u.nanoseconds)) {
      return std::to_string(d.count() / u.nanoseconds) + std::string(u.name);
    }
  }
  return std::to_string(d.count() / 1000) + "us";
}

std::optional<stack::IpAddress> parse_address(std::string_view text) {
  const std::string terminated(text);
  stack::IpAddress a;
  if (inet_pton(AF_INET6, terminated.c_str(), a.bytes.data()) == 1) return a;
  in_addr v4{};
  if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) return stack::IpAddress::v4(ntohl(v4.s_addr));
  return std::nullopt;
}

std::optional<stack::Prefix> parse_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_address(text.substr(0, slash));
  if (!address) return std::nullopt;
  const unsigned skipped = address->is_v4() ? 96 : 0;  // IPv4 lies in the last 32 bits
  if (slash == std::string_view::npos) return stack::Prefix{*address, 128};
  const auto length = parse_number<unsigned>(text.substr(slash + 1));
  if (!length || *length > 128 - skipped) return std::nullopt;
  return stack::Prefix{*address, static_cast<std::uint8_t>(*length + skipped)};
}

std::string to_text(const stack::IpAddress& a) {
  char text[INET6_ADDRSTRLEN] = {};
  const bool v4 = a.is_v4();
  inet_ntop(v4 ? AF_INET : AF_INET6, a.bytes.data() + (v4 ? 12 : 0), text, sizeof text);
  return text;
}

std::string to_text(const stack::Prefix& p) {
  return to_text(p.address) + "/" + std::to_string(p.length - (p.address.is_v4() ? 96 : 0));
}

stack::IpAddress network_of(const stack::Prefix& p) {
  stack::IpAddress a = p.address;
  for (unsigned bit = p.length; bit < 128; ++bit) {
    a.bytes[bit / 8] = static_cast<std::uint8_t>(a.bytes[bit / 8] & ~(0x80U >> bit % 8));
  }
  return a;
}

std::optional<Ports> parse_ports(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = parse_number<std::uint16_t>(text.substr(0, dash));
  if (!first) return std::nullopt;
  if (dash == std::string_view::npos) return Ports{*first, *first};
  const auto last = parse_number<std::uint16_t>(text.substr(dash + 1));
  if (!last || *last < *first) return std::nullopt;
  return Ports{*first, *last};
}

std::size_t distance(std::string_view a, std::string_view b) {
  // Optimal string alignment: row i from the two before it.
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

}  // namespace mtcp::conf
