// Reads and checks a configuration file.
#pragma once

#include <string>
#include <vector>

#include "intercept/options.hh"

namespace mtcp::conf {

struct LoadError {
  bool failed = false;
  std::string message;  // "file:line:column: what is wrong (what would be right)": of the first, and how many there are
  std::vector<std::string> all;
};

// Fills `options` from the TOML file at `path`. Unknown keys, wrong types and values out of range are errors.
LoadError load(const std::string& path, intercept::Options& options);

// The file that this process should use: $MTCP_CONF, else /etc/mtcp/mtcp.toml if it exists, else "".
// A set MTCP_CONF that names no readable file is an error of load(), not of this.
std::string find();

}  // namespace mtcp::conf
