// Which process a memif's other end is, in words that only a program of the same user can say: one that root has started
// and that has given up its rights since is root's still. It knows the key from before.
#pragma once

#include <sys/types.h>

#include <span>
#include <string_view>

#include "stack/base/siphash.hh"

namespace mtcp::stack::dpdk {

// How the name of an end begins that is a stack of ours, with a proof or without.
inline constexpr std::string_view kStack = "mtcp";

// Puts the calling process's proof, with a 0 at its end, where the protocol has a name. Nothing without /proc.
void write_proof(SipKey key, std::span<std::byte> name);
// Whether `name` is the proof of process `pid` as it lives now: one that was overheard is of no use to another process.
[[nodiscard]] bool proves(SipKey key, pid_t pid, std::string_view name);

}  // namespace mtcp::stack::dpdk
