// The wire as the stack sees it: a device queue that gives and takes packets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "stack/base/time.hh"
#include "stack/packet/packet.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

// How a stack has a listener, as the other stacks on its device see it.
enum class Listening : std::uint8_t {
  no,
  left,      // its application has gone from it: it takes new connections only while no other stack has it
  yes,       // it takes connections, and keeps them until somebody accepts
  accepting  // and somebody waits for them just now
};

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

  // The device has taken less than it was offered, and another try at once is of no use: who has nothing else to do
  // sleeps, for max_sleep().
  [[nodiscard]] virtual bool congested() const { return false; }
  // False while frames that tx() took wait for a peer to fetch them from memory that ends with this process.
  [[nodiscard]] virtual bool delivered() const { return true; }
  // More stacks share this device than there are CPUs for them: who has nothing to do had better sleep at once.
  [[nodiscard]] virtual bool crowded() const { return false; }

  // Control work that DPDK would leave to a thread (link changes, memif reconnects). Call about once a millisecond.
  virtual void service(Time now) = 0;

  // Sleeping. arm() asks for a wake-up on the descriptors of pollable() and returns false if packets are waiting
  // already; disarm() goes back to polling. A port whose descriptors do not tell of every packet returns a short
  // max_sleep(); others return Duration::max().
  virtual bool arm() = 0;
  virtual void disarm() = 0;
  [[nodiscard]] virtual std::span<const int> pollable() const = 0;
  [[nodiscard]] virtual Duration max_sleep() const = 0;

  [[nodiscard]] virtual bool link_up() const = 0;
  // True once after the only peer that there is on this wire, a stack as we are, has ended with all its connections. Nothing
  // of the next one is received before that has been asked.
  virtual bool take_peer_end() { return false; }
  [[nodiscard]] virtual MacAddress mac() const = 0;
  [[nodiscard]] virtual std::uint32_t mtu() const = 0;       // IP packet size, bytes
  [[nodiscard]] virtual bool tx_checksum_offload() const = 0;  // honours kTxL4Offload
  [[nodiscard]] virtual PacketPool& pool() = 0;
  // Frames since the start that the port had to drop itself: larger than a packet, or no packets left for them.
  [[nodiscard]] virtual std::uint64_t rx_dropped() const { return 0; }
  // Frames since the start that the device refused for good, and those that carried several segments each.
  [[nodiscard]] virtual std::uint64_t tx_dropped() const { return 0; }
  [[nodiscard]] virtual std::uint64_t tx_merged() const { return 0; }
  // For whoever runs the program, each once: what keeps the port from working. An empty text: nothing (more).
  struct Notice {
    std::string text;
    bool address_conflict = false;  // somebody else has an address of ours
  };
  virtual Notice notice() { return {}; }

  // Packets of pool() that the device has in its rings, at most: neither free nor in use.
  [[nodiscard]] virtual std::size_t packets_held() const { return 0; }

  // Free ones of the packets that the queue receives into: not pool()'s where what it receives is copied.
  [[nodiscard]] virtual std::size_t packets_free() { return pool().available(); }

  // --- other stacks on the same device (stack/steering). The defaults are those of a port that nobody shares.
  // There may be others.
  [[nodiscard]] virtual bool shared() const { return false; }
  // A received packet of flow `key` that this stack does not know, its data anywhere within the frame: takes it (true) if
  // another stack knows it or may know it, or it must not be refused now. `opens`: it is a SYN.
  virtual bool forward_unknown(Packet* /*p*/, const FlowKey& /*key*/, bool /*opens*/, Time /*now*/) { return false; }
  // Whether this stack may open `key`: it is the flow's home, where its packets come.
  [[nodiscard]] virtual bool may_open(const FlowKey& /*key*/) const { return true; }
  // Keeps who is not a stack of the device, but has its address, from using the local port of `key`, which is about to be opened
  // (stack/port/dpdk/share). False if somebody does. release_flow(): it is not opened after all.
  virtual bool reserve_flow(const FlowKey& /*key*/) { return true; }
  virtual void release_flow(const FlowKey& /*key*/) {}
  // What is sent to this address of ours comes here. Not if the kernel has it as well and keeps what comes for it: then a
  // connection from there would never be answered.
  [[nodiscard]] virtual bool receives(const IpAddress& /*local*/) { return true; }
  // A SYN of `remote` can't be answered over this device. Who has our addresses as well, the kernel, may have another way to it:
  // what it opens from now on is left to it. forget_left(): the routes are not what they were.
  virtual void leave_opens_of(const IpAddress& /*remote*/) {}
  virtual void forget_left() {}
  // In the child of a fork, which will not use the port: closes what would keep something of its parent's from others.
  virtual void leave_to_parent() {}
  // Enters into the directory that this stack has `key`, until withdraw(); false if another one has it already, or there is
  // no need to. For flows whose home is another stack, and all that are opened here. What a peer opens anew counts more than
  // what is left of the connection before it, whoever says so first.
  enum class FlowKind : std::uint8_t { connection, half_open, time_wait };
  virtual bool publish(const FlowKey& /*key*/, FlowKind /*kind*/) { return false; }
  virtual void withdraw(const FlowKey& /*key*/) {}
  // The same whatever was said before: for one that is established here, or that another stack has handed over. That it is
  // gone, if not `here`.
  virtual bool settle(const FlowKey& /*key*/, bool /*here*/) { return false; }
  // This stack is the home of `key`.
  [[nodiscard]] virtual bool is_home(const FlowKey& /*key*/) const { return true; }
  // The table has changed: flows of this stack whose home it is no longer are to be published, and then all_published() told.
  [[nodiscard]] virtual bool must_publish() const { return false; }
  virtual void all_published() {}
  // There are other stacks, so what is opened must be published.
  [[nodiscard]] virtual bool has_others() const { return false; }
  // There are listeners: new connections may be steered to this stack.
  virtual void set_serving(bool /*on*/) {}
  // How it has the listener with this index in its slab: what the others may send here. `v6_only`: it is on ::, and does not
  // take IPv4.
  virtual void note_listener(std::uint32_t /*index*/, const Endpoint& /*local*/, bool /*v6_only*/, Listening /*how*/) {}
  // Another stack takes connections to `local`.
  [[nodiscard]] virtual bool others_listen(const Endpoint& /*local*/) const { return false; }
  // Connections to `local` wait here that nobody here accepts: tells those who are accepting from the same listener. They
  // ask for some of them: then a packet with kPull comes, with the endpoint; Packet::flow_hash says who asks.
  virtual void offer(const Endpoint& /*local*/) {}
  // Whether any do, so that who begins to accept asks by itself.
  virtual void set_offering(bool /*on*/) {}
  // Sends a connection to the stack that has asked for it: its description and then its received data, copied. All or
  // nothing; false if there is no such stack any more, or no room. It arrives as packets with kHandover, in this order.
  using Messages = std::span<const std::span<const std::byte>>;
  virtual bool migrate(const FlowKey& /*key*/, Messages /*messages*/, std::uint32_t /*to*/) { return false; }
  // The same without having been asked, because this stack ends: to one that is accepting from the same listener, or else
  // has it. `may_wait`: if none has it, or there is no room, it waits for the next that has it, and its peer hears nothing
  // meanwhile.
  virtual bool migrate_away(const FlowKey& /*key*/, Messages /*messages*/, bool /*may_wait*/) { return false; }
  // It does end: what others send it from now on goes on to who has the listener. False again: it does not.
  virtual void set_closing(bool /*on*/) {}
  // A process waits for a place on the device, and none of those who have one takes new connections any more: this stack
  // is the first that should end what it has, so that its process leaves. has_given_way(): it has.
  [[nodiscard]] virtual bool must_give_way() const { return false; }
  virtual void has_given_way() {}
  // What waits on the device for a stack that has the listener becomes this one's, which may lack it.
  virtual void take_all_unclaimed() {}
  // Bookkeeping of the flows in hand by slab index, so that their peers learn of this process's death.
  virtual void note_flow(std::uint32_t /*index*/, const FlowKey& /*key*/) {}
  virtual void forget_flow(std::uint32_t /*index*/) {}
  // For mtcp-stat: this stack's number and queues, the free packets of those, and the frames that other stacks gave
  // or got since the start; `lost` found no room. hash_*: whether the hashes that the device computed of the first
  // segments are those that stacks are chosen by; both 0 if it tells none. False for a port that nobody shares.
  struct Share {
    std::uint32_t stack = 0, queues = 0;
    std::size_t packets_free = 0;
    std::uint64_t sent = 0, received = 0, lost = 0;
    std::uint32_t hash_agrees = 0, hash_differs = 0;
  };
  [[nodiscard]] virtual bool share(Share& /*out*/) const { return false; }
  // A flow of a stack whose process has died: its peer is to be told, by whoever is there if this process dies before
  // it has said orphan_told(). False if there is none (left).
  virtual bool next_orphan(FlowKey& /*key*/, std::uint32_t& /*number*/) { return false; }
  virtual void orphan_told(std::uint32_t /*number*/) {}
};

}  // namespace mtcp::stack
