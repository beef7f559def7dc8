// What mtcp-open has of the engine: a device that is opened for other programs, and told to them.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "intercept/check.hh"

namespace mtcp::intercept {

// Lives as long as its process.
class OpenedDevice {
 public:
  virtual ~OpenedDevice() = default;
  // The interface that it is on.
  [[nodiscard]] virtual std::string interface() const = 0;
  // What another process needs (stack::DeviceInvitation): the terms' bytes, and the descriptors, which stay this process's.
  // How many; 0: it can't be shared.
  virtual std::size_t invite(std::span<std::byte> terms, std::span<int> descriptors) = 0;
  // Now and then: what dead processes had is the kernel's again.
  virtual void tidy() = 0;
};

inline constexpr std::size_t kInvitationTerms = 128, kInvitationDescriptors = 253;  // bytes; SCM_MAX_FD
inline constexpr const char* kOpenerDirectory = "/run/mtcp-open";                   // there are IFACE.sock

// Opens the device of the configuration at `path`: 0 and `device`, or the status to end with, and what is wrong to the listener.
using EngineOpen = int (*)(const char* path, const CheckListener* listener, OpenedDevice** device);
inline constexpr const char* kEngineOpenName = "mtcp_engine_open";

}  // namespace mtcp::intercept
