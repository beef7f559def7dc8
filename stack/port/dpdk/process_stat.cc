#include "stack/port/dpdk/process_stat.hh"

#include <array>
#include <charconv>
#include <string>
#include <string_view>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

// Fields 3 and 22 of /proc/pid/stat; the name before them may contain anything, and ends with the last ")".
std::optional<ProcessStat> read(const std::string& process) {
  constexpr int kStart = 22;
  std::array<char, 1024> text;
  std::string_view rest = read_beginning("/proc/" + process + "/stat", text);
  const std::size_t name = rest.rfind(')');
  if (name == rest.npos || rest.size() < name + 3 || rest[name + 1] != ' ') return std::nullopt;
  ProcessStat stat{rest[name + 2], 0};
  rest.remove_prefix(name + 1);
  for (int field = 3; field <= kStart; ++field) {
    const std::size_t space = rest.find(' ');
    if (space == rest.npos) return std::nullopt;
    rest.remove_prefix(space + 1);
  }
  std::from_chars(rest.data(), rest.data() + rest.size(), stat.start);
  return stat;
}

}  // namespace

std::optional<ProcessStat> read_stat(std::uint32_t pid) { return read(std::to_string(pid)); }
std::optional<ProcessStat> read_own_stat() { return read("self"); }

}  // namespace mtcp::stack::dpdk
