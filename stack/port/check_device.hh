// Whether it looks as if this process could open a device: true, or false and `message`. Opens nothing.
#pragma once

#include "stack/port/device.hh"

namespace mtcp::stack {

bool check_device(const DeviceConfig& config, std::string& message);

}  // namespace mtcp::stack
