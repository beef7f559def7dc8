// Opening devices. The one header of stack/port/dpdk that others include; no DPDK type appears in it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stack/base/siphash.hh"
#include "stack/port/attachment.hh"

namespace mtcp::stack {

// The value of `key` in "driver0,key=value,..."; empty if it is not there.
[[nodiscard]] inline std::string value_of(std::string_view port, std::string_view key) {
  const std::string pattern = "," + std::string(key) + "=";
  const std::size_t at = port.find(pattern);
  if (at == port.npos) return {};
  port.remove_prefix(at + pattern.size());
  return std::string(port.substr(0, port.find(',')));
}

struct DeviceConfig {
  // A DPDK device string ("net_af_packet0,iface=eth0") or a PCI address; nothing to replace.
  std::string port;
  std::uint32_t queues = 1;  // wanted; 0: one per CPU where stacks can share the device, else one
  std::uint32_t cpus = 0;    // that the program may run on; 0: all that there are
  std::uint32_t rx_ring = 1024, tx_ring = 1024;
  std::uint32_t mtu = 1500;
  std::uint32_t packets = 65536;  // buffers per stack
  int hugepages = -1;             // -1 automatic (use them when there are enough), 0 off, 1 required
  std::vector<std::uint32_t> peer_users;  // memif: who may be at the other end, besides root and this process's user
  std::optional<SipKey> peer_key;  // memif: whoever has it may be at the other end, too, whatever his user is by now
  std::vector<std::uint32_t> addresses;   // the stack's own, IPv4 in host order: an interface of the kernel must not have them, unless it is shared, and if there are none then, those that it has
  std::uint64_t program = 0;              // the same in all processes of a program, and in no other's (SharedDevice::program)
  bool keeps_interface = false;           // nobody else is given what could take an XDP program off the interface
  bool* misconfigured = nullptr;  // becomes true if the failure is one that the user must mend
  bool* in_use = nullptr;         // becomes true if the failure is that another program has the device
};

// What a process that has not inherited a device, of this program or another, needs to have a part in it: to be passed on as it is, with
// the descriptors, which stay those of the device that has made it.
struct DeviceInvitation {
  std::array<std::byte, 128> terms{};
  std::vector<int> descriptors;  // none: this device can't be shared so
};

// A started device with all its queues. Opened at most once per process (EAL allows no more), inherited by
// fork: what its stacks share is in shared mappings, and nothing in it depends on a thread.
class Device {
 public:
  virtual ~Device() =
      default;  // stops and closes the device; only in the process that opened it or the last one
  [[nodiscard]] virtual std::uint32_t queues() const = 0;
  // A slot for a stack of the calling process, with its share of the queues; destroying the port leaves.
  // A null port when there is none: all slots are taken, or (a device that cannot be shared) another process has it.
  virtual OwnedAttachment join() = 0;
  // The packets of any one flow can come on any stack's queue (stack/steering/shared_device.hh).
  [[nodiscard]] virtual bool points_flows() const { return false; }
  // join() would find a slot, with some to spare for others, and a queue of its own for the stack.
  [[nodiscard]] virtual bool has_room() const { return false; }
  // What all stacks of this device derive their secrets from, so that one understands what another has
  // chosen; none if it has one stack only.
  [[nodiscard]] virtual std::optional<std::array<std::uint64_t, 4>> secrets() const = 0;
  // Connections wait for a stack that will have this listener (Steering::migrate_away).
  [[nodiscard]] virtual bool unclaimed(const Endpoint& /*local*/) const { return false; }
  [[nodiscard]] virtual bool any_unclaimed() const { return false; }  // for whatever endpoint
  // One queue without the other stacks: for tests and tools. Null if a living process has it; the claim of a
  // process that died is taken over. `stack` is distinct among all that do so.
  virtual std::unique_ptr<Port> claim(std::uint32_t queue, std::uint32_t stack) = 0;
  // All that it has open, which the application must not close: fixed once it is open, but for a private
  // device's (memif).
  [[nodiscard]] virtual std::span<const int> descriptors() const { return {}; }
  // From now on: descriptors that come and go with connections, which the application must not close either.
  virtual void tell_descriptors(std::function<void(int fd, bool opened)> /*tell*/) {}
  // How it is used, in a few words for whoever runs the program; empty: there is nothing to say.
  [[nodiscard]] virtual std::string summary() const { return {}; }
  // The calling process is about to end: true if no other one of its program has this device any more, be it with a stack or
  // without.
  virtual bool end_of_family() { return true; }
  [[nodiscard]] virtual DeviceInvitation invite() const { return {}; }
  // For a process that has the device open and no stack on it: withdraws what stacks of dead processes had.
  virtual void tidy() {}
  // For the child of a fork that will not use its parent's device: closes the inherited descriptors, so that
  // the peer notices when the parent dies. After this, and without it in any process but the opener, the
  // object and its ports are to be leaked or destroyed only; destroying a port does not release the parent's
  // claim.
  virtual void abandon() {}
};

// Null and `message` (what is wrong and how to mend it) on failure. Takes 50-400 ms. Leaves the calling
// thread's CPU affinity and signal mask as they were, starts no thread, opens nothing without O_CLOEXEC,
// prints nothing.
std::unique_ptr<Device> open_device(const DeviceConfig& config, std::string& message);
// The device behind an invitation that came from another process; its descriptors, copies of this process, are taken. Null if
// it can't be had.
// `program`, `cpus`: as in DeviceConfig.
std::unique_ptr<Device> open_as_guest(const DeviceInvitation& invitation, std::uint64_t program, std::uint32_t cpus);

}  // namespace mtcp::stack
