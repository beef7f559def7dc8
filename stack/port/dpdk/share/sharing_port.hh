// A stack's port on an interface that it shares with the kernel: tells the XDP program there which segments are the stack's, and
// does for ARP what the kernel has done already.
#pragma once

#include <stdlib.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "stack/port/dpdk/share/held_ports.hh"
#include "stack/port/dpdk/share/kernel_neighbours.hh"
#include "stack/port/dpdk/share/shared_ports.hh"
#include "stack/port/attachment.hh"
#include "stack/port/forwarding_port.hh"
#include "stack/wire/arp.hh"

namespace mtcp::stack {
class SharedDevice;
}

namespace mtcp::stack::dpdk {

class SharingPort final : public ForwardingPort, public KernelShare {
 public:
  // A stack of the calling process on `device`, as SteeringPort::join(); `ports`, which outlives the port, is null where the
  // interface is the stacks' alone. `follows`: their addresses are those that the kernel has on the interface, as they change.
  static OwnedAttachment join(SharedDevice& device, SharedPorts* ports, const std::string& interface, bool follows, HeldPorts::Tell tell);
  // `stack`: the inner port's number on the device.
  SharingPort(std::unique_ptr<Port> inner, SharedPorts& ports, std::uint32_t stack, const std::string& interface, bool follows,
              HeldPorts::Tell tell);
  ~SharingPort() override;

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  void service(Time now) override;
  // A packet waits for the address that has been asked for: of a process that ends, the resets that tell its peers.
  [[nodiscard]] TxState tx_state() const override;
  bool arm() override { return answers_.empty() && inner().arm(); }
  [[nodiscard]] Duration max_sleep() const override;

  void note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, bool here) override;
  bool reserve_flow(const FlowKey& key) override;
  void release_flow(const FlowKey& key) override;
  [[nodiscard]] bool receives(const IpAddress& local) override;
  void leave_opens_of(const IpAddress& remote) override { ports_.leave_opens_of(remote); }
  void forget_left() override { ports_.forget_left(); }
  void leave_to_parent() override { held_.release_all(); }
  void note_flow(std::uint32_t index, const FlowKey& key) override;
  void forget_flow(std::uint32_t index) override;

 private:
  // So long a port stays the stack's after its last connection: as that is in TIME-WAIT, or a peer sends once more what it
  // has not heard the answer to. New connections are the kernel's meanwhile.
  static constexpr Duration kLinger = seconds(120);
  static constexpr Duration kRound = milliseconds(10);  // between looks whether two of the others live
  static constexpr Duration kAddresses = seconds(1);   // between looks at the kernel's addresses

  [[nodiscard]] static bool is_arp(const Packet& p);
  void take_arp(Packet* p);
  [[nodiscard]] Packet* make_answer(const KernelNeighbours::Answer& answer);
  void end_lingering(Time now);
  void follow_addresses(Time now);

  SharedPorts& ports_;
  const std::uint32_t stack_;
  const pid_t owner_;
  const std::string interface_;
  const bool follows_;
  std::uint32_t addresses_;  // of the stacks, as last seen
  Time next_addresses_{};
  KernelNeighbours neighbours_;
  HeldPorts held_;
  Time now_{};

  struct Listens {
    Endpoint local;  // port 0: none
    bool v6_only = false;
  };
  std::vector<Listens> listeners_;  // by index
  // A flow's port: index of the address * 65,536 + number.
  static constexpr std::uint32_t kNone = UINT32_MAX, kHeld = 1U << 31;
  std::vector<std::uint32_t> flow_ports_;  // by index of the connection; kHeld: by a socket of the kernel as well
  struct Use {
    std::uint32_t flows = 0;
    bool lingers = false;  // is in lingering_
  };
  // By port: pages that nobody has touched are no memory.
  struct Free {
    void operator()(Use* p) const { free(p); }
  };
  const std::unique_ptr<Use[], Free> uses_;
  struct Lingering {
    std::uint32_t port;
    Time until;
  };
  std::deque<Lingering> lingering_;
  FlowKey reserved_{};  // and not noted yet; its local port 0: none
  std::deque<KernelNeighbours::Answer> answers_;
  Time next_round_{};
};

}  // namespace mtcp::stack::dpdk
