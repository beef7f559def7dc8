// The command line of mtcp-dump.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "scripts/dump/source.hh"

namespace mtcp::dump {

struct Arguments {
  pid_t pid = 0;  // 0: all processes
  std::string file = "-";
  std::uint64_t count = UINT64_MAX;  // packets
  Wanted wanted;
};

// None: the program ends with `status`; what there is to say has been said.
std::optional<Arguments> parse_arguments(int count, char** words, int& status);

}  // namespace mtcp::dump
