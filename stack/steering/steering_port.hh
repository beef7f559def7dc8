// One stack's port on a device that several stacks share: its queues of the device and its messages from the other
// stacks on one side, its Tcp on the other. What comes for another stack's flows goes there; see README.md.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/port/port.hh"
#include "stack/port/steering.hh"
#include "stack/steering/control_block.hh"
#include "stack/steering/death_watch.hh"
#include "stack/steering/flow_hash.hh"
#include "stack/steering/message_ring.hh"
#include "stack/steering/pointed_flows.h"
#include "stack/steering/shared_device.hh"

namespace mtcp::stack {

class SteeringPort final : public Port, public Steering {
 public:
  // Joins the device's stacks; null if all slots of the control block are taken, or without memory. `device` outlives the port. The
  // destructor leaves, if `device.self()` is still the process that joined.
  static std::unique_ptr<SteeringPort> join(SharedDevice& device);
  ~SteeringPort() override;
  SteeringPort(const SteeringPort&) = delete;
  SteeringPort& operator=(const SteeringPort&) = delete;

  std::size_t rx(Packet** out, std::size_t max) override;
  std::size_t tx(Packet* const* packets, std::size_t n) override;
  [[nodiscard]] bool busy(const Packet& p) const override;
  [[nodiscard]] TxState tx_state() const override;
  void service(Time now) override;
  bool arm() override;
  void disarm() override;
  [[nodiscard]] std::span<const int> pollable() const override { return pollable_; }
  [[nodiscard]] Duration max_sleep() const override;
  [[nodiscard]] Link link() const override;
  [[nodiscard]] MacAddress mac() const override { return device_.mac(); }
  [[nodiscard]] std::uint32_t mtu() const override;
  [[nodiscard]] bool tx_checksum_offload() const override { return device_.tx_checksum_offload(); }
  [[nodiscard]] PacketPool& pool() override { return pool_; }
  [[nodiscard]] bool takes_external() const override { return !queues_.empty() && queues_.front()->takes_external(); }
  [[nodiscard]] bool takes_any_pool() const override { return queues_.empty() || queues_.front()->takes_any_pool(); }
  [[nodiscard]] std::size_t packets_held() const override;
  [[nodiscard]] Status status() const override;
  Notice notice() override;

  [[nodiscard]] bool has_others() const override { return !others_.empty(); }
  // Those that sleep count as well: they may have been woken, and wait for a CPU.
  [[nodiscard]] bool crowded() const override { return others_.size() >= device_.cpus(); }
  [[nodiscard]] Share share() const override;
  bool forward_unknown(Packet* p, const FlowKey& key, bool opens, Time now) override;
  void announce() override;
  [[nodiscard]] bool may_open(const FlowKey& key) const override;
  [[nodiscard]] bool is_home(const FlowKey& key) const override;
  bool publish(const FlowKey& key, FlowKind kind) override;
  void withdraw(const FlowKey& key) override;
  bool settle(const FlowKey& key, bool here) override;
  void point(const FlowKey& key, bool on) override;
  [[nodiscard]] bool must_publish() const override { return must_publish_; }
  void all_published() override;
  void set_serving(bool on) override;
  void note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, Listening how) override;
  [[nodiscard]] bool others_listen(const Endpoint& local) const override;
  void offer(const Endpoint& local) override;
  void set_offering(bool on) override { control_.slot(me_).offering.store(on, std::memory_order_release); }
  bool migrate(const FlowKey& key, Messages messages, std::uint32_t to) override;
  bool pass_to(const FlowKey& key, Messages messages, std::uint32_t to) override;
  bool migrate_away(const FlowKey& key, Messages messages, bool may_wait) override;
  void take_all_unclaimed() override { take_unclaimed(ControlBlock::kNobody); }
  void set_closing(bool on) override { closing_ = on; }
  [[nodiscard]] bool must_give_way() const override { return must_give_way_; }
  void has_given_way() override;
  void note_flow(std::uint32_t index, const FlowKey& key) override;
  void forget_flow(std::uint32_t index) override;
  bool next_orphan(FlowKey& key, std::uint32_t& number) override;
  void orphan_told(std::uint32_t number) override;

  [[nodiscard]] std::uint8_t number() const { return me_; }
  [[nodiscard]] std::size_t queues() const { return queues_.size(); }
  // Frames given to other stacks and taken from them, and those that found a full message ring, since the start.
  struct Traffic {
    std::uint64_t sent = 0, received = 0, lost = 0;
  };
  [[nodiscard]] const Traffic& traffic() const { return traffic_; }

 private:
  // How often a stack looks whether the others live and every queue is polled; one that sleeps is woken for it, if it is told of
  // deaths. So long may packets for a dead process's queue wait.
  static constexpr Duration kRound = milliseconds(20);
  // So long a process waits for a slot before the first stack gives way, and again before the next one does; and it has
  // gone if it has not tried for this long.
  static constexpr Duration kWaits = seconds(2), kWaitsNoMore = milliseconds(500);

  SteeringPort(SharedDevice& device, std::uint8_t me, PacketPool& pool);

  void refresh() {
    if (control_.version() != version_) [[unlikely]] reload();
  }
  void reload();
  std::size_t sort(Packet** packets, std::size_t n);
  void mark(Packet& p, std::uint32_t hash) const;
  void compare_hashes(Packet* const* packets, std::size_t n);
  [[nodiscard]] std::uint8_t owner_of(std::uint32_t hash) const { return table_[hash & entry_mask_]; }
  [[nodiscard]] MessageRing message_ring(std::uint32_t from, std::uint32_t to) const {
    return {control_.ring_memory(from, to), control_.frame(), ControlBlock::kRingMessages};
  }
  [[nodiscard]] bool is_for_own_listener(const Packet& p) const;
  bool post(std::uint32_t to, const Message& message);
  void count_written(std::uint32_t to, std::size_t n);
  void ring(StackSet stacks);
  void wake_all();
  std::size_t receive_messages(Packet** out, std::size_t max);
  [[nodiscard]] Packet* copy_of(const Message& message);
  void transmit_for_others(Packet** packets, std::size_t n);
  void transmit_left_over();
  [[nodiscard]] std::uint32_t transmitter() const;
  std::size_t transmit_by_message(Packet* const* packets, std::size_t n);
  bool offer_to_listeners(Packet* p, const Endpoint& local, bool opens, std::uint8_t home);
  [[nodiscard]] bool is_pointed_here(std::uint32_t hash) const { return pointed_here_ != nullptr && pointed_here_->test(hash % kPointed); }
  void point_all_here();
  bool pass(Packet* p, std::uint32_t to, std::uint16_t mark);
  bool hold(Packet* p, std::uint64_t flow, Time now);
  std::size_t receive_held(Packet** out, std::size_t max);
  [[nodiscard]] StackSet who_listens(const Endpoint& local, Listening least) const { return who_listens(ControlBlock::destination(local), least); }
  [[nodiscard]] StackSet who_listens(std::uint64_t destination, Listening least) const;
  [[nodiscard]] bool is_of(std::uint64_t program, std::uint32_t stack) const;
  [[nodiscard]] StackSet who_takes_over(std::uint64_t destination, Listening least, std::uint64_t program) const;
  [[nodiscard]] bool are_shared_out(std::size_t share) const;
  bool balance_queues();
  void look_who_waits(Time now);
  void point_card(Time now);
  bool claim_one();
  void look_for_the_dead();
  void watch_others();
  void stop_watching();
  bool reap_if_dead(std::uint32_t stack);
  void reap(std::uint8_t stack);
  bool pass_on(std::span<const Message> messages, std::uint8_t gone, std::uint64_t program, const SharedDevice* device);
  void inherit(const Message& message, std::vector<Packet*>& to_send);
  bool leave_unclaimed(std::uint64_t destination, std::uint64_t program, std::uint64_t flow, Messages messages, const SharedDevice* device);
  void take_unclaimed(std::uint8_t stack);
  void take_over_messages();
  bool send_messages(std::uint32_t to, std::uint64_t destination, std::uint64_t flow, Messages messages);
  void pull_from(std::uint32_t stack, const Endpoint& local);
  void tell(std::uint32_t stack, MessageKind kind, const Endpoint& local);
  Packet* receive_message(const Message& message, std::uint32_t from);
  std::size_t receive_inherited(Packet** out, std::size_t max);
  void rebuild_pollable();
  static void add_counters(Status& sum, const Status& more);

  SharedDevice& device_;
  ControlBlock& control_;
  PacketPool& pool_;
  const std::uint64_t self_;
  const std::uint8_t me_;
  const std::uint64_t program_;
  FlowHash hash_;
  std::unique_ptr<DeathWatch> watch_;  // null: deaths are to be looked for
  bool watch_is_stale_ = true;
  static constexpr std::uint32_t kToldInVain = 3;
  std::uint32_t told_in_vain_ = 0;     // rounds in which nobody was found dead
  std::vector<std::unique_ptr<Port>> queues_;
  std::vector<std::uint32_t> queue_numbers_;
  std::vector<int> pollable_;
  // Our copy of the table and the members, as of `version_`.
  std::uint32_t version_ = 0;
  StackSet others_;     // the other stacks
  StackSet strangers_;  // of those, other programs'
  StackSet siblings_;   // and those of this process, which end with it
  std::vector<std::uint16_t> listener_ports_;  // our own listeners', by index; 0: none
  StackSet without_;  // all stacks that have no share of the table
  const std::uint32_t entry_mask_;
  std::array<std::uint8_t, kMaxSteeringEntries> table_{};
  // Flows that are away from their home, by a part of their hashes: their packets come to us (SharedDevice::point_flow). Null:
  // there have been none.
  static constexpr std::size_t kPointed = MTCP_POINTED_FLOWS;
  std::unique_ptr<std::bitset<kPointed>> pointed_here_;
  bool unclaimed_ = false;    // connections wait on the control block
  std::array<std::uint8_t, kMaxStacks> unannounced_{};  // messages, by whom they are for
  StackSet written_to_;      // who has some of these
  StackSet unread_senders_;  // whose message rings have not been emptied
  std::array<std::uint64_t, kMaxStacks> owners_{};  // of the slots, as last seen
  std::uint32_t last_sender_ = 0;  // whose message ring was read last
  bool must_publish_ = false;      // entries of the table were ours, and are not any more
  bool closing_ = false;           // nothing is taken over any more
  // Packets of flows whose descriptions are in our message rings, and until when these are waited for.
  struct Awaited {
    std::uint64_t flow;  // Directory::hash
    Time until;
  };
  std::vector<Packet*> held_;
  std::vector<Awaited> awaited_;
  bool retry_held_ = false;
  Traffic traffic_;
  std::uint32_t hash_agrees_ = 0, hash_differs_ = 0;
  Status before_;  // what the queues counted that have been given back
  std::size_t first_queue_ = 0;       // which is asked first in the next rx()
  std::uint32_t handed_over_ = 0;     // the last one that got something that was not its own
  std::vector<Listening> unlisted_;   // listeners beyond ControlBlock::kListeners
  Time next_round_{};
  bool balanced_ = false;             // our queues, as of the last round
  std::uint32_t refusals_ = 0, ways_given_ = 0;  // as last seen
  Time refused_at_{};           // when that was
  Time waits_since_{};          // a process for a slot, with nobody who serves
  bool must_give_way_ = false;
  Time next_card_{};
  bool card_is_told_ = false;  // what the table and the queues were when we were last woken
  bool armed_ = false;
  bool woken_ = false;      // since the last look for packets
  bool late_wake_ = false;  // something woke us, but it was no packet: what wakes us is to be read
  bool ask_watch_ = false;  // and it may have been a death
  std::uint32_t looked_at_ = 0;       // whether it lives; last
  std::uint32_t next_orphan_ = 0;     // in our part of the control block
  std::uint32_t being_told_ = 0;      // of the orphans before that one
  std::vector<Packet*> inherited_;    // what lay in the message rings of the dead
  std::vector<Packet*> left_over_;    // what others want sent, and nobody has room for, or a queue
};

}  // namespace mtcp::stack
