// The other stacks on the device, as a stack sees them: which flows are whose, connections that go from one to another, and what
// becomes of those of a stack that ends or dies. Of a device with one stack only there is none. See stack/steering/README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

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

// Used by one worker at a time, as its Port. Nothing here blocks.
class Steering {
 public:
  virtual ~Steering() = default;

  // --- who is there
  [[nodiscard]] virtual bool has_others() const = 0;
  // There are more stacks than CPUs for them: who has nothing to do had better sleep at once.
  [[nodiscard]] virtual bool crowded() const = 0;
  // For mtcp-stat: this stack's number and queues, the free packets of those, and the frames that other stacks gave
  // or got since the start; `lost` found no room. hash_*: whether the hashes that the device computed of the first
  // segments are those that stacks are chosen by; both 0 if it tells none.
  struct Share {
    std::uint32_t stack = 0, queues = 0;
    std::size_t packets_free = 0;
    std::uint64_t sent = 0, received = 0, lost = 0;
    std::uint32_t hash_agrees = 0, hash_differs = 0;
  };
  [[nodiscard]] virtual Share share() const = 0;

  // --- whose a flow is
  // A received packet of flow `key` that this stack does not know, its data anywhere within the frame: takes it (true) if
  // another stack knows it or may know it, or it must not be refused now. `opens`: it is a SYN.
  virtual bool forward_unknown(Packet* p, const FlowKey& key, bool opens, Time now) = 0;
  // What forward_unknown() and migrate() have sent is told to those whom it is for: each of them is woken once.
  virtual void announce() = 0;
  // Whether this stack may open `key`: it is the flow's home, where its packets come.
  [[nodiscard]] virtual bool may_open(const FlowKey& key) const = 0;
  // This stack is the home of `key`.
  [[nodiscard]] virtual bool is_home(const FlowKey& key) const = 0;
  // Enters into the directory that this stack has `key`, until withdraw(); false if another one has it already, or there is
  // no need to. For flows whose home is another stack, and all that are opened here. What a peer opens anew counts more than
  // what is left of the connection before it, whoever says so first.
  enum class FlowKind : std::uint8_t { connection, half_open, time_wait };
  virtual bool publish(const FlowKey& key, FlowKind kind) = 0;
  virtual void withdraw(const FlowKey& key) = 0;
  // The same whatever was said before: for one that is established here, or that another stack has handed over. That it is
  // gone, if not `here`.
  virtual bool settle(const FlowKey& key, bool here) = 0;
  // `key`, which is published: its packets are to come here directly, though another stack is its home, where the device can tell
  // flows apart; or (not `on`) as the table says again, which settle() and withdraw() imply.
  virtual void point(const FlowKey& key, bool on) = 0;
  // The table has changed: flows of this stack whose home it is no longer are to be published, and then all_published() told.
  [[nodiscard]] virtual bool must_publish() const = 0;
  virtual void all_published() = 0;

  // --- listeners
  // There are some: new connections may be steered to this stack.
  virtual void set_serving(bool on) = 0;
  // How it has the listener with this index in its slab: what the others may send here. `v6_only`: it is on ::, and does not
  // take IPv4.
  virtual void note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, Listening how) = 0;
  // Another stack takes connections to `local`.
  [[nodiscard]] virtual bool others_listen(const Endpoint& local) const = 0;

  // --- migration
  // Connections to `local` wait here that nobody here accepts: tells those who are accepting from the same listener. They
  // ask for some of them: then a packet with kPull comes, with the endpoint; Packet::flow_hash says who asks.
  virtual void offer(const Endpoint& local) = 0;
  // Whether any do, so that who begins to accept asks by itself.
  virtual void set_offering(bool on) = 0;
  // Sends a connection to the stack that has asked for it: its description and then its received data, copied. All or
  // nothing; false if there is no such stack any more, or no room. It arrives as packets with kHandover, in this order.
  using Messages = std::span<const std::span<const std::byte>>;
  virtual bool migrate(const FlowKey& key, Messages messages, std::uint32_t to) = 0;
  // The same to a stack of this program that expects it, whatever listeners it has.
  virtual bool pass_to(const FlowKey& key, Messages messages, std::uint32_t to) = 0;
  // The same without having been asked, because this stack ends: to one that is accepting from the same listener, or else
  // has it. `may_wait`: if none has it, or there is no room, it waits for the next that has it, and its peer hears nothing
  // meanwhile.
  virtual bool migrate_away(const FlowKey& key, Messages messages, bool may_wait) = 0;
  // What waits on the device for a stack that has the listener becomes this one's, which may lack it.
  virtual void take_all_unclaimed() = 0;

  // --- the end of a stack
  // This one does end: what others send it from now on goes on to who has the listener. False again: it does not.
  virtual void set_closing(bool on) = 0;
  // A process waits for a slot of the device, and none of those that have one takes new connections any more: this stack
  // is the first that should end what it has, so that its process leaves. has_given_way(): it has.
  [[nodiscard]] virtual bool must_give_way() const = 0;
  virtual void has_given_way() = 0;
  // Bookkeeping of the flows in hand by slab index, so that their peers learn of this process's death.
  virtual void note_flow(std::uint32_t index, const FlowKey& key) = 0;
  virtual void forget_flow(std::uint32_t index) = 0;
  // A flow of a stack whose process has died: its peer is to be told, by whoever is there if this process dies before
  // it has said orphan_told(). False if there is none (left).
  virtual bool next_orphan(FlowKey& key, std::uint32_t& number) = 0;
  virtual void orphan_told(std::uint32_t number) = 0;
};

}  // namespace mtcp::stack
