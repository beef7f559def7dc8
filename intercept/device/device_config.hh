// What the configuration says of the device, as its opener wants it.
#pragma once

#include "intercept/options.hh"
#include "stack/port/device.hh"

namespace mtcp::intercept {

// sysexits.h: a server whose device can't be opened would listen and never hear anything, so it ends, as it would end if
// bind failed.
inline constexpr int kExitUnavailable = 69;

[[nodiscard]] stack::DeviceConfig device_config(const Options& options);

}  // namespace mtcp::intercept
