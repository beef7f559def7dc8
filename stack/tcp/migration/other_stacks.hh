// One stack among several on the same device: what it asks of the others and tells them, through its Steering. The kernel is told as well
// where it has the device, too (KernelShare).
#pragma once

#include <cstdint>
#include <deque>

#include "stack/tcp/connection.hh"
#include "stack/tcp/passive/listener.hh"
#include "stack/tcp/passive/syn_entry.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp;

class OtherStacks {
 public:
  explicit OtherStacks(Tcp& tcp);
  OtherStacks(const OtherStacks&) = delete;
  OtherStacks& operator=(const OtherStacks&) = delete;

  bool forward_unknown(Segment& s, Time now);  // another stack may know the flow: takes the packet (true)
  bool offer(Packet*& p, const FlowKey& key, bool opens, Time now);
  bool send_on(Segment& s, Time now);  // a SYN for a listener that has been left; false: nobody else has it
  void publish_flows();
  void publish(SynEntry& e);
  void settle(Connection& c);  // it is here, though this stack may not be its home: its packets are to come directly
  void enter_table(Connection& c);  // it stands in the flow table: its peer is told if this process dies
  void forget_flow(const Connection& c);
  void update_serving();  // the listeners have changed: what the others should send here
  void note_listener(const Listener& l);
  void forget_listener(const Listener& l);
  void run_timers(Time now);  // each tick, if there may be other stacks
  void part() { parting_ = true; }
  [[nodiscard]] bool parting() const { return parting_; }
  [[nodiscard]] Time next_deadline() const;

 private:
  struct Orphan {
    FlowKey key;
    std::uint32_t number;  // Steering::orphan_told
    Time again;            // when its peer is told again
    std::uint8_t left;     // times
  };

  void tell_orphans(Time now);
  void tell_orphan(const FlowKey& key, Time now);
  void give_way(Time now);  // resets all connections

  Tcp& tcp_;
  Stats& stats_;
  std::deque<Orphan> told_;       // in the order of `again`
  bool orphans_waiting_ = false;  // Steering::next_orphan() has more than one tick may see to
  bool serving_ = false;          // what the others were told
  bool parting_ = false;          // what nobody here knows is left to whoever comes next
};

}  // namespace mtcp::stack
