#include "stack/port/dpdk/memif/memif_proof.hh"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <optional>

#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/process_stat.hh"

namespace mtcp::stack::dpdk {

namespace {

using Text = std::array<char, 32>;

// Empty without /proc.
Text proof_of(SipKey key, pid_t pid) {
  Text text{};
  const auto stat = pid > 0 ? read_stat(static_cast<std::uint32_t>(pid)) : std::nullopt;
  if (!stat || stat->start == 0) return text;
  const auto process = static_cast<std::uint64_t>(pid);
  snprintf(text.data(), text.size(), "mtcp %016llx",
           static_cast<unsigned long long>(siphash_words<2, 4>(key, process, stat->start)));
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
