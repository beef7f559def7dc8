// What becomes of an interface of the kernel while the stack is on it, and what the kernel does there by itself.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stack/base/time.hh"
#include "stack/port/port.hh"

namespace mtcp::stack::dpdk {

// The name of the interface that a packet socket is bound to; empty if it is gone.
[[nodiscard]] std::string interface_of_socket(int fd);
// An address of ours that is the kernel's as well: both would answer, and the kernel refuse what is the stack's. Empty, or
// what is wrong and the line that mends it. `addresses`: IPv4, host order.
[[nodiscard]] std::string shared_address(const std::vector<std::uint32_t>& addresses);
// The kernel would send on what comes for one of `addresses` on the interface, and tell its senders to go elsewhere. The
// same.
[[nodiscard]] std::string forwarded_address(const std::string& interface, const std::vector<std::uint32_t>& addresses);

// Whether the interface is up and how large its packets may be; looked at ten times a second, for all ports of a process
// (DeviceState::watch), by whichever of them comes first.
class LinkWatch {
 public:
  LinkWatch(pid_t process, std::string interface) : process_(process), name_(std::move(interface)) {}
  [[nodiscard]] bool is_of(pid_t process, const std::string& interface) const { return process == process_ && interface == name_; }
  void look(Time now) {
    if (now >= next_.load(std::memory_order_relaxed)) look_now(now);
  }
  // At the next look(), whenever that is.
  void look_soon() { next_.store({}, std::memory_order_relaxed); }
  [[nodiscard]] bool up() const { return up_.load(std::memory_order_relaxed); }
  // That the interface does not exist any more, once for all ports; empty: it does, or it has been told.
  [[nodiscard]] Port::Notice notice() {
    if (!gone_.load(std::memory_order_relaxed) || told_.exchange(true, std::memory_order_relaxed)) return {};
    return {"the interface " + name_ + " is gone: what comes by others is the kernel's. Start the program again when it is back", false};
  }
  [[nodiscard]] std::uint32_t mtu() const { return mtu_.load(std::memory_order_relaxed); }

 private:
  void look_now(Time now);
  const pid_t process_;
  const std::string name_;
  std::atomic<Time> next_{Time{}};
  std::atomic<bool> up_ = true, gone_ = false, told_ = false;
  std::atomic<std::uint32_t> mtu_ = UINT32_MAX;
};

// Looks once a second for what was not so when the device was opened, and tells it once.
class AddressWatch {
 public:
  // `guarded`: the kernel does not get what comes for them on the interface.
  AddressWatch(std::string interface, std::vector<std::uint32_t> addresses, bool guarded)
      : interface_(std::move(interface)), addresses_(std::move(addresses)), guarded_(guarded) {}
  void look(Time now);
  // Empty if there is nothing to tell.
  [[nodiscard]] Port::Notice notice() { return std::exchange(notice_, {}); }

 private:
  const std::string interface_;
  const std::vector<std::uint32_t> addresses_;
  const bool guarded_;
  Time next_{};
  std::string shared_, forwarded_;  // as told
  Port::Notice notice_;
};

}  // namespace mtcp::stack::dpdk
