// What the stacks that share a device know of each other, in memory that all of them map; the process that
// opens the device makes it before it forks. A process may die at any instruction: nothing here is left
// half done by that, and nobody waits for the dead. And one may write there what it likes: the others believe it about
// flows and listeners, but take nothing from there as an index, a length or a place in memory that they have not
// checked. How large the board is and what lies where each process knows by itself.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "stack/port/port.hh"
#include "stack/steering/reservations.hh"
#include "stack/steering/stack_set.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class SharedDevice;
struct Letter;

// Of the table that says whose a flow is. With at least two for each stack Jain's index of the shares is above 0.95.
inline constexpr std::uint32_t kMaxSteeringEntries = 512;

// A flow that a stack has in hand, for those who must tell its peer if that stack dies.
struct LedgerEntry {
  std::uint32_t local = 0, remote = 0;  // IPv4, host order; local 0: nothing
  std::uint16_t local_port = 0, remote_port = 0;
};

class Board {
 public:
  static constexpr std::uint8_t kNobody = 0xff;
  static constexpr std::uint32_t kLedger = 65536;     // flows per stack that it holds
  static constexpr std::uint32_t kMailSlots = 128;    // frames from one stack to another
  static constexpr std::uint32_t kListeners = 256;    // listeners per stack that it tells apart
  static constexpr std::uint32_t kParked = 4;         // and those for which connections wait
  using Secrets = std::array<std::uint64_t, 4>;
  // What it is made for.
  struct Shape {
    std::size_t frame;                            // bytes of the largest frame
    std::uint32_t places = kMaxStacks;            // stacks at a time, at most kMaxStacks
    std::uint32_t entries = kMaxSteeringEntries;  // of the table: a power of two, at most kMaxSteeringEntries
  };

  // Bytes that a board takes; most of it is never touched.
  [[nodiscard]] static std::size_t memory(const Shape& shape);
  // `memory` is zeroed, page-aligned and shared. `secrets`: from the system's randomness, for all stacks of this
  // device: what one of them has chosen by a keyed hash (ISN, cookie, timestamp offset) the next one understands.
  Board(std::byte* memory, const Shape& shape, const Secrets& secrets);
  // The same, whose parts are mapped as they are used: `head` are the first head_memory() bytes, and map() gives `bytes` more
  // from `offset` on, or null. Without secrets it is a board that another process has made.
  using Map = std::function<std::byte*(std::size_t offset, std::size_t bytes)>;
  Board(std::byte* head, Map map, const Shape& shape, const Secrets* secrets);
  [[nodiscard]] static std::size_t head_memory();
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  // --- who is there. `device` tells who lives.
  // A free place, or that of a dead process, for `device.self()`; kNobody if all are taken.
  [[nodiscard]] std::uint8_t join(const SharedDevice& device);
  void leave(std::uint8_t stack, const SharedDevice& device);
  // True, to exactly one caller, if the process behind `stack` has died: its place is free now. Whom it had in hand, and
  // whom it was still to tell of others' deaths, is appended to orphans(heir), and what lay in its mailboxes is shown to
  // `mail`. Of a stack that has left the orphans alone. `heir`: the caller's stack, or kNobody: then the orphans wait
  // there for the next one.
  [[nodiscard]] bool bury(std::uint8_t stack, std::uint8_t heir, const SharedDevice& device,
                          const std::function<void(const Letter&)>& mail = {});
  // A place that is free has mail or orphans that somebody should see to, by bury().
  [[nodiscard]] bool left_something(std::uint8_t stack) const;
  // It takes new connections: the flows are shared among those that do (among all, if none does).
  void set_serving(std::uint8_t stack, bool serving, const SharedDevice& device);
  [[nodiscard]] bool present(std::uint8_t stack) const { return place(stack).owner.load(std::memory_order_acquire) != 0; }
  [[nodiscard]] bool serving(std::uint8_t stack) const { return place(stack).serving.load(std::memory_order_acquire); }
  // How often join() has failed for want of a place: changes as long as a process waits for one.
  [[nodiscard]] std::uint32_t refusals() const { return head().refusals.load(std::memory_order_relaxed); }
  // When nobody takes new connections: how many stacks stopped doing so before this one did. None if somebody does, or this
  // one never has.
  [[nodiscard]] std::optional<std::uint32_t> stopped_before(std::uint8_t stack) const;
  // It has done what it could to leave; how often that has happened.
  void has_given_way(std::uint8_t stack) {
    place(stack).stopped.store(0, std::memory_order_relaxed);
    head().ways_given.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t ways_given() const { return head().ways_given.load(std::memory_order_relaxed); }
  [[nodiscard]] StackSet members() const;
  [[nodiscard]] std::uint32_t places() const { return shape_.places; }
  // Changes with every change of the members and the table.
  [[nodiscard]] std::uint32_t version() const { return head().version.load(std::memory_order_acquire); }

  // --- whose a flow is
  struct Owners {
    std::uint8_t present = kNobody, previous = kNobody;
  };
  // `entry`: any number, as a hash is.
  [[nodiscard]] Owners owners(std::uint32_t entry) const {
    const std::uint16_t e = head().table[entry & (entries() - 1)].load(std::memory_order_relaxed);
    return {known(static_cast<std::uint8_t>(e)), known(static_cast<std::uint8_t>(e >> 8))};
  }
  [[nodiscard]] std::uint32_t entries() const { return shape_.entries; }
  // Tells the device which queue each entry's packets are to come on, if it does not know and another one is not just
  // telling it.
  void spread_by(std::span<const std::uint8_t> queues, std::uint64_t self, SharedDevice& device);
  [[nodiscard]] const Secrets& secrets() const { return secrets_; }
  // A connection goes from one stack to another. Within a second a segment of it that nobody knows is on its heels, and not
  // to be refused. Each stack says what time it takes it for: a reader may have read the clock before the writer did.
  void note_move(std::uint32_t hash, Time now) {
    moved(hash).store(std::uint64_t{hash} << 32 | milliseconds_of(now), std::memory_order_relaxed);
  }
  [[nodiscard]] bool moved_lately(std::uint32_t hash, Time now) {
    const std::uint64_t m = moved(hash).load(std::memory_order_relaxed);
    if (m == 0 || m >> 32 != hash) return false;
    const auto since = static_cast<std::int32_t>(milliseconds_of(now) - static_cast<std::uint32_t>(m));
    return since > -1000 && since < 1000;
  }
  // Of the flows that stacks have opened.
  [[nodiscard]] Reservations reservations() { return Reservations(head().reserved.data()); }

  // --- a stack's own place
  struct alignas(64) Place {
    std::atomic<std::uint64_t> owner;      // the process; 0: nobody
    std::atomic<bool> serving;
    std::atomic<std::uint32_t> stopped;    // serving: when, by head's version; 0: it serves, or never has
    std::atomic<std::uint32_t> ledger_end; // beyond the last ledger entry that has been used
    std::atomic<std::uint32_t> orphans_end;
    std::atomic<std::uint64_t> queues;     // StackSet: those of the device that it polls
    alignas(64) std::atomic<std::uint64_t> mail;   // StackSet: who has put something into our mailboxes
    std::atomic<std::uint32_t> sleeping;   // whoever sets this back to 0 wakes the stack
    // By index in the stack's slab; only the stack itself writes. Each is one word, so that it changes at once.
    alignas(64) std::array<std::atomic<std::uint64_t>, kListeners> listeners;
    std::atomic<std::uint32_t> listeners_end;  // beyond the last that has been used
    std::atomic<Listening> unlisted;           // the most of those beyond kListeners
    // Listeners that nobody had when their connections were left here: in the mailbox from this place to itself.
    std::array<std::atomic<std::uint64_t>, kParked> parked;
  };
  [[nodiscard]] Place& place(std::uint32_t stack) { return head().places[stack]; }
  [[nodiscard]] const Place& place(std::uint32_t stack) const { return head().places[stack]; }
  // For the stack itself. Listeners with an index beyond kListeners count for every endpoint that is not in the list.
  void note_listener(std::uint8_t stack, std::uint32_t index, const Endpoint& local, Listening how);
  // The most that it has for connections to `local`, IPv4 or any.
  [[nodiscard]] Listening listening(std::uint32_t stack, const Endpoint& local) const;
  // Leaves the messages of a connection for whoever has the listener next. False without room. For `stack` itself.
  [[nodiscard]] bool park(std::uint8_t stack, const Endpoint& local, std::span<const std::span<const std::byte>> messages);
  // Whether such wait for `local`; if it is any, for its port.
  [[nodiscard]] bool parked(const Endpoint& local) const;
  [[nodiscard]] bool any_parked() const;  // as of the last change of members
  // Shows the letters of all places where some wait that `stack` has the listener for (kNobody: all), and forgets them.
  void take_parked(std::uint8_t stack, const SharedDevice& device, const std::function<void(const Letter&)>& visit);
  // By index in the stack's slab; only the stack itself writes.
  // Empty if it can't be mapped.
  [[nodiscard]] std::span<LedgerEntry> ledger(std::uint32_t stack);
  // Flows of the dead whose peers `stack` is to tell; the first orphans_end of them count, and those whose `local` is 0
  // have been told. Only the stack itself writes; one that dies or leaves has an heir.
  static constexpr std::uint32_t kOrphans = 2 * kLedger;  // beyond that, peers learn of it when they send something
  [[nodiscard]] std::span<LedgerEntry> orphans(std::uint32_t stack);
  // Who has put something into our mailboxes since the last time.
  [[nodiscard]] StackSet take_mail(std::uint8_t stack) { return StackSet(place(stack).mail.exchange(0)) & everybody(); }
  // Of those that there is room for.
  [[nodiscard]] StackSet everybody() const {
    return StackSet(places() == kMaxStacks ? ~std::uint64_t{0} : (std::uint64_t{1} << places()) - 1);
  }
  // Where the mail from one stack to another begins; see mailbox.hh. Null if it can't be mapped.
  [[nodiscard]] std::byte* mail(std::uint32_t from, std::uint32_t to);
  [[nodiscard]] std::size_t frame() const { return shape_.frame; }

 private:
  [[nodiscard]] static std::uint32_t milliseconds_of(Time t) {  // and wraps around
    return static_cast<std::uint32_t>(t.time_since_epoch() / milliseconds(1));
  }
  struct Card {
    std::atomic<std::uint64_t> changer;  // who talks to it just now
    std::atomic<bool> fixed;             // its table can't be changed (any more)
    std::array<std::atomic<std::uint8_t>, kMaxSteeringEntries> queues;  // as it was told, plus 1; 0: not yet
  };
  struct Head {
    std::atomic<std::uint32_t> version;
    std::atomic<std::uint32_t> refusals, ways_given;
    Secrets secrets;  // for a process that comes later
    std::array<std::atomic<std::uint16_t>, kMaxSteeringEntries> table;  // present | previous << 8
    alignas(64) std::atomic<std::uint64_t> changer;                  // who changes the table just now
    std::array<Place, kMaxStacks> places;
    Card card;
    std::array<std::atomic<std::uint64_t>, 65536> moved;  // by hash: hash << 32 | when; those of a second at 17,000 moves/s
    alignas(64) std::array<std::byte, Reservations::kMemory> reserved;
  };
  [[nodiscard]] std::atomic<std::uint64_t>& moved(std::uint32_t hash) { return head().moved[(hash * 0x9e37'79b1U) >> 16]; }
  class Change;
  [[nodiscard]] Head& head() { return *reinterpret_cast<Head*>(memory_); }
  [[nodiscard]] const Head& head() const { return *reinterpret_cast<const Head*>(memory_); }
  void vacate(std::uint8_t stack);
  [[nodiscard]] bool parked_for(std::uint32_t stack, std::uint32_t at) const;
  void inherit(std::span<const LedgerEntry> entries, std::uint8_t heir);
  void share_out();
  [[nodiscard]] std::uint32_t nth(std::uint32_t n) const;
  void prepare();
  [[nodiscard]] std::byte* part(std::size_t index, std::size_t offset, std::size_t bytes);
  std::byte* memory_;
  Map map_;                         // null: all of it lies behind the head
  std::vector<std::byte*> parts_;   // what has been mapped so far: of each stack, then of each pair
  [[nodiscard]] std::uint8_t known(std::uint8_t stack) const { return stack < places() ? stack : kNobody; }
  const Shape shape_;
  const Secrets secrets_;
};

}  // namespace mtcp::stack
