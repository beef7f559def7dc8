// Flows of one server with many clients, for what measures tables of them.
#pragma once

#include <cstdint>

#include "stack/tcp/flow_table.hh"

namespace mtcp::perf {

inline stack::FlowKey key_of(std::uint32_t i) {
  stack::FlowKey key;
  key.local = stack::IpAddress::v4(10, 0, 0, 1);
  key.remote = stack::IpAddress::v4(0x0a000000U + (i >> 15));
  key.local_port = 80;
  key.remote_port = static_cast<std::uint16_t>(1024 + (i & 0x7fff));
  return key;
}

}  // namespace mtcp::perf
