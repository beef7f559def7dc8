// The message benchmark's protocol, shared by msg_server and msg_client: the client sends 64 bytes, the
// server answers with their complement and closes. Ordinary sockets: nothing in these programs knows of mtcp.
#pragma once

#include <sys/resource.h>

#include <cstddef>
#include <cstdint>

namespace mtcp::perf {

inline constexpr std::size_t kMessageSize = 64;

// As many descriptors as this process may have.
inline void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace mtcp::perf
