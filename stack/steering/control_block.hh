// What the stacks that share a device know of each other, in memory that all of them map; the process that
// opens the device makes it before it forks. A process may die at any instruction: nothing here is left
// half done by that, and nobody waits for the dead. And one may write there what it likes: the others believe it about
// flows and listeners, but take nothing from there as an index, a length or a place in memory that they have not
// checked. How large the control block is and what lies where each process knows by itself.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "stack/port/steering.hh"
#include "stack/steering/directory.hh"
#include "stack/steering/stack_set.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class SharedDevice;
struct Message;

// Of the table that says whose a flow is. With at least two for each stack Jain's index of the shares is above 0.95.
inline constexpr std::uint32_t kMaxSteeringEntries = 512;

// A flow that a stack has in hand, for those who must tell its peer if that stack dies.
struct FlowRecord {
  FlowKey key;
  std::uint16_t vlan = 0;
  std::atomic<std::uint16_t> used = 0;  // 0: nothing; written last and forgotten first

  void set(const FlowKey& k) {
    key = k;
    used.store(1, std::memory_order_release);
  }
  void clear() { used.store(0, std::memory_order_release); }
  [[nodiscard]] bool is_used() const { return used.load(std::memory_order_acquire) != 0; }
};
static_assert(sizeof(FlowRecord) == 40);

class ControlBlock {
 public:
  static constexpr std::uint8_t kNobody = 0xff;
  static constexpr std::uint32_t kRecords = 65536;    // flows per stack whose peers are told of its death
  static constexpr std::uint32_t kRingMessages = 128;    // frames from one stack to another
  static constexpr std::uint32_t kListeners = 256;    // listeners per stack that it tells apart
  static constexpr std::uint32_t kUnclaimed = 4;         // and those for which connections wait
  using Secrets = std::array<std::uint64_t, 4>;
  // What it is made for.
  struct Shape {
    std::size_t frame;                            // bytes of the largest frame
    std::uint32_t slots = kMaxStacks;            // stacks at a time, at most kMaxStacks
    std::uint32_t entries = kMaxSteeringEntries;  // of the table: a power of two, at most kMaxSteeringEntries
    // Words of the directory.
    [[nodiscard]] std::uint32_t words() const { return std::bit_ceil(slots * kRecords); }
  };

  // Bytes that a control block takes; most of it is never touched.
  [[nodiscard]] static std::size_t memory(const Shape& shape);
  // `memory` is zeroed, page-aligned and shared. `secrets`: from the system's randomness, for all stacks of this
  // device: what one of them has chosen by a keyed hash (ISN, cookie, timestamp offset) the next one understands.
  ControlBlock(std::byte* memory, const Shape& shape, const Secrets& secrets);
  // The same, whose parts are mapped as they are used: `head` are the first head_memory(shape) bytes, and map() gives `bytes` more
  // from `offset` on, or null. Without secrets it is a control block that another process has made.
  using Map = std::function<std::byte*(std::size_t offset, std::size_t bytes)>;
  ControlBlock(std::byte* head, Map map, const Shape& shape, const Secrets* secrets);
  [[nodiscard]] static std::size_t head_memory(const Shape& shape);
  ControlBlock(const ControlBlock&) = delete;
  ControlBlock& operator=(const ControlBlock&) = delete;

  // --- who is there. `device` tells who lives.
  // A free slot, or that of a dead process, for `device.self()`; kNobody if all are taken.
  [[nodiscard]] std::uint8_t join(const SharedDevice& device);
  void leave(std::uint8_t stack, const SharedDevice& device);
  // True, to exactly one caller, if the process behind `stack` has died: its slot is free now. Whom it had in hand, and
  // whom it was still to tell of others' deaths, is appended to orphans(successor), and what lay in its message rings is shown to
  // `messages`, those of a connection together. Of a stack that has left the orphans alone. `successor`: the caller's stack, or kNobody: then the orphans wait
  // there for the next one.
  [[nodiscard]] bool reap(std::uint8_t stack, std::uint8_t successor, const SharedDevice& device,
                          const std::function<void(std::span<const Message>)>& messages = {});
  // A slot that is free has messages or orphans that somebody should see to, by reap().
  [[nodiscard]] bool left_something(std::uint8_t stack) const;
  // It takes new connections: the flows are shared among those that do (among all, if none does).
  void set_serving(std::uint8_t stack, bool serving, const SharedDevice& device);
  [[nodiscard]] bool present(std::uint8_t stack) const { return slot(stack).owner.load(std::memory_order_acquire) != 0; }
  [[nodiscard]] bool serving(std::uint8_t stack) const { return slot(stack).serving.load(std::memory_order_acquire); }
  // How often join() has failed for want of a slot: changes as long as a process waits for one.
  [[nodiscard]] std::uint32_t refusals() const { return head().refusals.load(std::memory_order_relaxed); }
  // When nobody takes new connections: how many stacks stopped doing so before this one did. None if somebody does, or this
  // one never has.
  [[nodiscard]] std::optional<std::uint32_t> stopped_before(std::uint8_t stack) const;
  // It has done what it could to leave; how often that has happened.
  void has_given_way(std::uint8_t stack) {
    slot(stack).stopped.store(0, std::memory_order_relaxed);
    head().ways_given.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t ways_given() const { return head().ways_given.load(std::memory_order_relaxed); }
  [[nodiscard]] StackSet members() const;
  [[nodiscard]] std::uint32_t slots() const { return shape_.slots; }
  // Changes with every change of the members and the table.
  [[nodiscard]] std::uint32_t version() const { return head().version.load(std::memory_order_acquire); }

  // --- whose a flow is
  // The home of the flows of an entry of the table: any number, as a hash is.
  [[nodiscard]] std::uint8_t home(std::uint32_t entry) const {
    return known(head().table[entry & (entries() - 1)].load(std::memory_order_acquire));
  }
  // Those who were it, and have not yet entered into the directory which of its flows they have.
  [[nodiscard]] StackSet yielding(std::uint32_t entry) const {
    return StackSet(head().yielding[entry & (entries() - 1)].load(std::memory_order_acquire)) & everybody();
  }
  // `stack` has entered all, as of `version`. False if there has been a change since then: it is to look again.
  [[nodiscard]] bool yielded(std::uint8_t stack, std::uint32_t version, const SharedDevice& device);
  [[nodiscard]] Directory& directory() { return directory_; }
  [[nodiscard]] std::uint32_t entries() const { return shape_.entries; }
  // Tells the device which queue each entry's packets are to come on, if it does not know. False if another one is just telling it
  // something.
  bool spread_by(std::span<const std::uint8_t> queues, std::uint64_t self, SharedDevice& device);
  [[nodiscard]] const Secrets& secrets() const { return secrets_; }

  // --- a stack's own slot
  struct alignas(64) Slot {
    std::atomic<std::uint64_t> owner;      // the process; 0: nobody
    std::atomic<std::uint64_t> program;    // SharedDevice::program(); of the last owner
    std::atomic<bool> serving;
    std::atomic<std::uint32_t> stopped;    // serving: when, by head's version; 0: it serves, or never has
    std::atomic<std::uint32_t> records_end; // beyond the last record that has been used
    std::atomic<std::uint32_t> untold_end;
    std::atomic<std::uint64_t> queues;     // StackSet: those of the device that it polls
    alignas(64) std::atomic<std::uint64_t> senders;   // StackSet: who has put something into our message rings
    std::atomic<std::uint32_t> sleeping;   // whoever sets this back to 0 wakes the stack
    std::atomic<bool> offering;            // connections wait there that nobody there accepts
    // By index in the stack's slab; only the stack itself writes. Each is one word, so that it changes at once.
    alignas(64) std::array<std::atomic<std::uint64_t>, kListeners> listeners;
    std::atomic<std::uint32_t> listeners_end;  // beyond the last that has been used
    std::atomic<Listening> unlisted;           // the most of those beyond kListeners
    // Listeners that nobody had when their connections were left here: in the message ring from this slot to itself.
    std::array<std::atomic<std::uint64_t>, kUnclaimed> unclaimed;
    std::array<std::atomic<std::uint64_t>, kUnclaimed> unclaimed_program;  // whose they are; written before the former
  };
  [[nodiscard]] Slot& slot(std::uint32_t stack) { return head().slots[stack]; }
  [[nodiscard]] const Slot& slot(std::uint32_t stack) const { return head().slots[stack]; }
  // For the stack itself. Listeners with an index beyond kListeners count for every endpoint that is not in the list.
  // `v6_only`: on ::, and it does not take IPv4.
  void note_listener(std::uint8_t stack, std::uint32_t index, const Endpoint& local, bool v6_only, Listening how);
  // The most that it has for connections to `local`.
  [[nodiscard]] Listening listening(std::uint32_t stack, const Endpoint& local) const { return listening(stack, destination(local)); }
  // Where a connection goes, as a word: of two IPv6 addresses that have the same, one is taken for the other.
  [[nodiscard]] static std::uint64_t destination(const Endpoint& local);
  [[nodiscard]] static std::uint16_t port_of(std::uint64_t destination) { return static_cast<std::uint16_t>(destination); }
  [[nodiscard]] Listening listening(std::uint32_t stack, std::uint64_t destination) const;
  // Leaves the messages of a connection for whoever of this program has the listener next. False without room. For `stack` itself;
  // in reap(), which has the lock, without `device`.
  [[nodiscard]] bool leave_unclaimed(std::uint8_t stack, std::uint64_t destination, std::uint64_t program, std::uint64_t flow,
                                     std::span<const std::span<const std::byte>> messages, const SharedDevice* device);
  // Whether such wait for `local`; if it is any, for its port.
  [[nodiscard]] bool unclaimed(const Endpoint& local) const;
  [[nodiscard]] bool any_unclaimed_at(std::uint16_t port) const;
  [[nodiscard]] bool any_unclaimed() const;  // as of the last change of members
  // Shows the messages that wait for a listener which `stack` has (kNobody: all of them) and that are this program's, and forgets
  // them.
  void take_unclaimed(std::uint8_t stack, std::uint64_t program, SharedDevice& device, const std::function<void(const Message&)>& visit);
  // Its flows by index in the stack's slab; only the stack itself writes. Empty if it can't be mapped.
  [[nodiscard]] std::span<FlowRecord> records(std::uint32_t stack);
  // Flows of the dead whose peers `stack` is to tell; the first untold_end of them count, and those that are not used have
  // been told. Only the stack itself writes; one that dies or leaves has a successor.
  static constexpr std::uint32_t kUntold = 2 * kRecords;  // beyond that, peers learn of it when they send something
  [[nodiscard]] std::span<FlowRecord> untold(std::uint32_t stack);
  // Who has put something into our message rings since the last time.
  [[nodiscard]] StackSet take_senders(std::uint8_t stack) { return StackSet(slot(stack).senders.exchange(0)) & everybody(); }
  // Of those that there is room for.
  [[nodiscard]] StackSet everybody() const {
    return StackSet(slots() == kMaxStacks ? ~std::uint64_t{0} : (std::uint64_t{1} << slots()) - 1);
  }
  // Where the messages from one stack to another begins; see message_ring.hh. Null if it can't be mapped.
  [[nodiscard]] std::byte* ring_memory(std::uint32_t from, std::uint32_t to);
  [[nodiscard]] std::size_t frame() const { return shape_.frame; }

 private:
  struct Card {
    std::atomic<std::uint64_t> changer;  // who talks to it just now
    std::atomic<bool> fixed;             // its table can't be changed (any more)
    std::array<std::atomic<std::uint8_t>, kMaxSteeringEntries> queues;  // as it was told, plus 1; 0: not yet
  };
  struct Head {
    std::atomic<std::uint32_t> version;
    std::atomic<std::uint32_t> refusals, ways_given;
    Secrets secrets;  // for a process that comes later
    std::array<std::atomic<std::uint8_t>, kMaxSteeringEntries> table;
    alignas(64) std::array<std::atomic<std::uint64_t>, kMaxSteeringEntries> yielding;  // StackSet
    alignas(64) std::atomic<std::uint64_t> changer;                  // who changes the table just now
    std::array<Slot, kMaxStacks> slots;
    Card card;
  };
  class Lock;
  class Change;
  [[nodiscard]] Head& head() { return *reinterpret_cast<Head*>(memory_); }
  [[nodiscard]] const Head& head() const { return *reinterpret_cast<const Head*>(memory_); }
  [[nodiscard]] static SipKey directory_key(const Secrets& secrets);
  void vacate(std::uint8_t stack);
  [[nodiscard]] bool unclaimed_for(const Slot& holder, std::uint32_t stack, std::uint64_t destination, std::uint64_t program) const;
  void inherit(std::span<const FlowRecord> records, std::uint8_t successor);
  void share_out();
  [[nodiscard]] std::uint32_t nth(std::uint32_t n) const;
  void prepare();
  [[nodiscard]] std::byte* part(std::size_t index, std::size_t offset, std::size_t bytes);
  std::byte* memory_;
  Map map_;                         // null: all of it lies behind the head
  std::mutex mapping_;
  std::vector<std::atomic<std::byte*>> parts_;  // what has been mapped so far: of each stack, then of each pair
  [[nodiscard]] std::uint8_t known(std::uint8_t stack) const { return stack < slots() ? stack : kNobody; }
  const Shape shape_;
  const Secrets secrets_;
  Directory directory_;
};

}  // namespace mtcp::stack
