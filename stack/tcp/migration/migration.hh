// Connections that nobody here will accept go to another stack of the device, and come from one (Linux's tcp_migrate_req).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "stack/tcp/passive/listener.hh"
#include "stack/tcp/passive/syn_entry.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp;
struct HandoverConnection;
struct HandoverHalfOpen;
struct HandoverHead;

class Migration {
 public:
  explicit Migration(Tcp& tcp);
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;

  // --- handover.cc: to another stack
  void leave(Listener& l, Time now);
  void return_to(Listener& l);
  void set_watched(Listener& l, bool watched);
  // `l` was left, and nobody else takes connections to `local` yet.
  [[nodiscard]] bool takes_new(const Listener& l, const Endpoint& local, Time now) const;
  void set_still_held(std::function<bool(const Endpoint&)> held) { still_held_ = std::move(held); }  // Worker::set_still_held
  std::size_t end_listeners(bool last_try, Time now);  // the process ends
  // Something has become ready to be offered, or is looked at again when it is due.
  void look_again() { must_look_ = true; }
  void look(Time now) {
    if (must_look_) hand_over_waiting(now);
  }
  void run_timers(Time now);
  [[nodiscard]] Time next_deadline() const;
  [[nodiscard]] bool closing() const { return closing_; }  // what is new is for others
  void listen_again();                                     // it was closing, perhaps

  bool pass(Connection& c, std::uint32_t to, Time now);  // Worker::pass

  // --- adopt.cc: from another stack
  void expect(const FlowKey& key);  // this and what follows: Worker's
  [[nodiscard]] bool expects(const FlowKey& key) { return find_expected(key) != nullptr; }
  [[nodiscard]] Connection* take_expected(const FlowKey& key);
  void stop_expecting(const FlowKey& key, Time now);
  void receive(Packet* p, Time now);
  void forget_adoption(const Connection& c) {  // it is over
    if (!adopting_.empty()) [[unlikely]] erase_adoption(c);
  }

 private:
  enum class Outcome : std::uint8_t { done, refused, impossible };
  struct Destination {
    std::optional<std::uint32_t> stack = std::nullopt;  // none: whoever has the listener ...
    bool may_wait = false;                              // ... or will have it
  };
  // Connections of another stack of whose data some has not arrived.
  struct Adopting {
    std::uint32_t index;  // in the slab
    FlowKey key;
    Seq end;   // of that data
    bool fin;  // the peer's FIN follows it
    Time deadline;
  };
  struct Expected {
    FlowKey key;
    Connection* arrived = nullptr;  // it stays, even if it ends, until it is taken
  };

  void hand_over_waiting(Time now);
  [[nodiscard]] bool still_held(const Listener& l) const;
  Time tend(Listener& l, Time now);
  [[nodiscard]] bool is_describable(const Connection& c) const;
  [[nodiscard]] std::size_t piece() const;  // bytes of data in a message
  Outcome migrate(Connection& c, const Destination& to, Time now);
  std::uint32_t migrate_queue(Listener& l, const Destination& to, std::uint32_t most, Time now);
  void migrate_half_open(Listener& l, bool may_wait, Time now);
  void serve_pull(const Packet& p, Time now);
  void reset_unaccepted(Listener& l, Duration patience, Time now);
  void detach_silently(Connection& c);

  [[nodiscard]] Expected* find_expected(const FlowKey& key);
  [[nodiscard]] Listener* find_adopter(const FlowKey& key, std::uint32_t hash);
  bool make_way(const FlowKey& key, std::uint32_t hash);
  void adopt(const HandoverConnection& m, Time now);
  void adopt_half_open(const HandoverHalfOpen& m, Time now);
  void adopt_data(const HandoverHead& head, Packet*& p, Time now);
  void restore(Connection& c, const HandoverConnection& m, Time now);
  void complete_adoption(Connection& c, Time now);
  [[nodiscard]] bool is_arriving(const Connection& c) const;
  void erase_adoption(const Connection& c);
  void abandon_adoptions(Time now);
  void refuse_adoption(const HandoverConnection& m, Time now);

  Tcp& tcp_;
  const Options& options_;
  Stats& stats_;
  std::vector<Adopting> adopting_;
  std::vector<Expected> expected_;
  std::function<bool(const Endpoint&)> still_held_;
  bool must_look_ = false;
  bool offering_ = false;  // what the port was told
  bool closing_ = false;   // end_listeners()
  Time due_ = kNever;      // what nobody took, or is to end, is looked at again
};

}  // namespace mtcp::stack
