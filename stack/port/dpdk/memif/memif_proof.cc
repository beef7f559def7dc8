#include "stack/port/dpdk/memif/memif_proof.hh"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <string>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

using Text = std::array<char, 32>;

// When the process was started, in clock ticks since the machine was: with it, a number that is used again is another
// process. 0 without /proc.
std::uint64_t start_of(pid_t pid) {
  constexpr int kStart = 22;  // which field of the file; the second may have spaces in it, and ends with the last ")"
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const long fd = system_call(SYS_openat, AT_FDCWD, arg(path.c_str()), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::array<char, 1024> text;
  const long n = system_call(SYS_read, fd, arg(text.data()), static_cast<long>(text.size()));
  system_call(SYS_close, fd);
  if (n <= 0) return 0;
  std::string_view rest(text.data(), static_cast<std::size_t>(n));
  rest.remove_prefix(rest.rfind(')') + 1);
  for (int field = 2; field < kStart; ++field) {
    const std::size_t space = rest.find(' ');
    if (space == rest.npos) return 0;
    rest.remove_prefix(space + 1);
  }
  std::uint64_t start = 0;
  std::from_chars(rest.data(), rest.data() + rest.size(), start);
  return start;
}

// Empty without /proc.
Text proof_of(SipKey key, pid_t pid) {
  Text text{};
  const std::uint64_t start = start_of(pid);
  if (pid <= 0 || start == 0) return text;
  const auto process = static_cast<std::uint64_t>(pid);
  snprintf(text.data(), text.size(), "mtcp %016llx",
           static_cast<unsigned long long>(siphash_words<2, 4>(key, process, start)));
  return text;
}

}  // namespace

void write_proof(SipKey key, std::span<std::byte> name) {
  const Text text = proof_of(key, static_cast<pid_t>(system_call(SYS_getpid)));
  if (text[0] != 0 && name.size() >= text.size()) memcpy(name.data(), text.data(), text.size());
}

bool proves(SipKey key, pid_t pid, std::string_view name) {
  const Text text = proof_of(key, pid);
  return text[0] != 0 && name == text.data();
}

}  // namespace mtcp::stack::dpdk
