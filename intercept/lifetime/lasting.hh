// What outlives this process: the secrets of initial sequence numbers and local ports, kept in a file, so that a program
// that is started again goes on where it was (RFC 6528, RFC 6056). And what needs no keeping, because every process of
// the machine finds the same: where timestamps begin (RFC 7323).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "intercept/kernel.hh"
#include "stack/worker.hh"

namespace mtcp::intercept {

// A directory of the calling user's in one that belongs to all or to the system.
struct KeepingPlace {
  std::string parent;  // is there already
  std::string name;    // is made if it is missing; nobody else may write there
};

// Where to look, in this order. Root: /run, which nobody else can write to; others: what is there for everybody.
[[nodiscard]] std::vector<KeepingPlace> keeping_places(unsigned uid);

[[nodiscard]] bool fill_random(std::span<std::byte> out);

// Fills in `lasting`, `host` and `port_counters`, from the first place that will do. False: nothing can be kept;
// `lasting` is fresh then, and the counters null. No randomness (no getrandom): `usable` becomes false.
bool load_lasting(Kernel& kernel, const std::vector<KeepingPlace>& places, stack::Secrets& secrets, bool& usable);

// By device, what the names of its door are made of (device/door.cc) besides the secret: all programs of the user change them.
struct DoorNonces {
  std::array<std::atomic<std::uint64_t>, 512> of{};
};

// From a file beside that of the secrets; null: nothing can be kept. It stays mapped.
[[nodiscard]] DoorNonces* load_door_nonces(Kernel& kernel, const std::vector<KeepingPlace>& places);

}  // namespace mtcp::intercept
