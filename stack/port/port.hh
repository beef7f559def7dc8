// The wire as the stack sees it: a device queue that gives and takes packets. Who else has the device is said elsewhere: other
// stacks in steering.hh, the kernel in kernel_share.hh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "stack/base/time.hh"
#include "stack/packet/packet.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

// As many full packets as a device that takes several as one frame (64 KB) can have in one.
inline constexpr std::size_t kTxBurst = 44;

// One queue pair of a device, used by one worker at a time. Nothing here blocks.
class Port {
 public:
  virtual ~Port() = default;

  // Receives up to max frames; ownership passes to the caller. Sets data, len and kRxL4Good.
  virtual std::size_t rx(Packet** out, std::size_t max) = 0;
  // Sends frames (data/len: from the Ethernet header on), returns how many were taken, from the front. A taken
  // packet without kKeep belongs to the device; with kKeep it stays the caller's, who must not change it while busy().
  virtual std::size_t tx(Packet* const* packets, std::size_t n) = 0;
  // True while the device may still read a packet that was sent with kKeep.
  [[nodiscard]] virtual bool busy(const Packet& p) const = 0;
  struct TxState {
    // The device has taken less than it was offered, and another try at once is of no use: who has nothing else to do
    // sleeps, for max_sleep().
    bool congested = false;
    // False while frames that tx() took wait for a peer to fetch them from memory that ends with this process.
    bool delivered = true;
  };
  [[nodiscard]] virtual TxState tx_state() const = 0;

  // Control work that DPDK would leave to a thread (link changes, memif reconnects). Call about once a millisecond.
  virtual void service(Time now) = 0;

  // Sleeping. arm() asks for a wake-up on the descriptors of pollable() and returns false if packets are waiting
  // already; disarm() goes back to polling. A port whose descriptors do not tell of every packet returns a short
  // max_sleep(); others return Duration::max().
  virtual bool arm() = 0;
  virtual void disarm() = 0;
  [[nodiscard]] virtual std::span<const int> pollable() const = 0;
  [[nodiscard]] virtual Duration max_sleep() const = 0;

  struct Link {
    bool up = false;
    // How often the only peer that there is on this wire, a stack as we are, has ended with all its connections. Nothing of the
    // next one is received before service() has been called again.
    std::uint32_t peers_ended = 0;
  };
  [[nodiscard]] virtual Link link() const = 0;
  [[nodiscard]] bool link_up() const { return link().up; }
  [[nodiscard]] virtual MacAddress mac() const = 0;
  [[nodiscard]] virtual std::uint32_t mtu() const = 0;       // IP packet size, bytes
  [[nodiscard]] virtual bool tx_checksum_offload() const = 0;  // honours kTxL4Offload
  [[nodiscard]] virtual PacketPool& pool() = 0;
  // Takes packets with kExternal, also such that are to be cut into segments (stack/packet/external.hh), and is done with their
  // memory when tx() returns. Not for ever, where others share the device: who offers one nevertheless has it copied, or loses it.
  [[nodiscard]] virtual bool takes_external() const { return false; }

  // tx() takes packets of other pools than pool() as well: whoever copies what it sends.
  [[nodiscard]] virtual bool takes_any_pool() const { return true; }

  // How many packets collect, while the application goes from one connection to the next, before they are offered: few where a peer
  // takes them from memory at once and so works at the same time, many where each offer is a system call.
  [[nodiscard]] virtual std::size_t tx_burst() const { return kTxBurst; }

  // Packets of pool() that the device has in its rings, at most: neither free nor in use.
  [[nodiscard]] virtual std::size_t packets_held() const = 0;

  // For mtcp-stat: may take a system call.
  struct Status {
    // Frames since the start: that did not fit (larger than a packet, no packets left for them, no room in a ring that tells of it), that the
    // device refused for good, and those that carried several segments each.
    std::uint64_t rx_dropped = 0, tx_dropped = 0, tx_merged = 0;
    const char* by = nullptr;      // how the kernel gives it frames, where there are several ways: "packet-socket", "xdp-zero-copy"
    std::size_t packets_free = 0;  // of those that the queue receives into: not pool()'s where what it receives is copied
  };
  [[nodiscard]] virtual Status status() const = 0;
  // For whoever runs the program, each once: what keeps the port from working. An empty text: nothing (more).
  struct Notice {
    std::string text;
    bool address_conflict = false;  // somebody else has an address of ours
  };
  virtual Notice notice() = 0;
};

}  // namespace mtcp::stack
