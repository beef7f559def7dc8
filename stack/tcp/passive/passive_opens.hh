// Passive opens: listeners, the SYN queue, SYN cookies, Fast Open's server and the accept queues (RFC 9293 3.10.7.2 and
// 3.10.7.4, RFC 4987, RFC 7413; limits as Linux has them).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "stack/base/siphash.hh"
#include "stack/base/slab.hh"
#include "stack/tcp/fast_open.hh"
#include "stack/tcp/flow_table.hh"
#include "stack/tcp/passive/filter.hh"
#include "stack/tcp/passive/listener.hh"
#include "stack/tcp/passive/syn_entry.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp;

class PassiveOpens {
 public:
  PassiveOpens(Tcp& tcp, const Secrets& secrets);
  PassiveOpens(const PassiveOpens&) = delete;
  PassiveOpens& operator=(const PassiveOpens&) = delete;

  // --- listen.cc: the application's listeners
  Result<Listener*> listen(const Endpoint& local, const Worker::ListenOptions& options);
  void close(Listener& l, Time now);
  Connection* accept(Listener& l);
  // Exact address, then the wildcard of its family, then :: for IPv4; `hash` spreads flows over SO_REUSEPORT
  // groups. `was_left`: among those that the application has left to another process, else among the others.
  [[nodiscard]] Listener* find_listener(const Endpoint& local, std::uint32_t hash, bool was_left = false);
  // A SYN for what another process goes on listening to.
  [[nodiscard]] bool left_to_another(const Segment& s) const;
  // A SYN for what nobody listens to here, but soon will: Worker::set_expected.
  [[nodiscard]] bool is_expected(const Segment& s, Time now);
  // On an interface that is shared with the kernel: a SYN that was given to the stacks while one had its listener. The kernel, which listens as
  // well if anybody does, answers when it comes again.
  [[nodiscard]] bool is_kernels_next(const Segment& s) const;
  void set_expected(std::function<bool(const Endpoint&)> expected) { expected_ = std::move(expected); }

  // --- syn.cc: LISTEN and SYN-RECEIVED
  void on_listen(Listener& l, Segment& s, std::uint32_t hash, Time now);
  // `isn`: beyond the TIME-WAIT that this SYN replaces, or null.
  void on_syn(Listener& l, Segment& s, std::uint32_t hash, const Seq* isn, Time now);
  void on_syn_entry(SynEntry& e, Segment& s, Time now);
  void queue_for_accept(Listener& l, Connection& c);
  void drop(SynEntry& e);                // leaves the flow table, too
  void schedule(SynEntry& e, Time now);  // its next SYN-ACK, by its retries
  void run_timers(Time now);
  [[nodiscard]] Time next_deadline() const;

  // --- filter.cc: who may open connections (FilterRule)
  void set_filter(std::span<const FilterRule> rules) { filter_.set(rules); }
  void refuse(const Segment& s, Time now);  // a reset, unless the filter says otherwise

  // --- fast_open.cc (RFC 7413)
  void answer_fast_open(Connection& c, const Listener* l, Time now);
  [[nodiscard]] static bool awaits_ack_of_syn(const Connection& c);
  void note_fast_open_reset(const Connection& c, Time now);

  Slab<Listener> listeners;
  std::vector<Endpoint> left;  // where another process goes on listening
  Slab<SynEntry> entries;
  std::uint32_t published = 0;  // of the entries: SynEntry::published

 private:
  // By number of retries: each list has one timeout, so it is in the order of its deadlines.
  using SynList = IntrusiveList<SynEntry, &SynEntry::hook>;
  static constexpr std::size_t kSynLists = 8;
  struct FastOpen {
    FlowKey key;
    std::uint32_t hash;
    Seq iss;
    Endpoint local;  // of the listener
    Time until;      // it was reset, and counts until then; zero: it was not
  };
  enum class Admission : std::uint8_t { queue, cookie, drop };

  Admission admit_syn(const Listener& l, bool recycled);
  bool check_syn_entry(SynEntry& e, Segment& s, Time now);
  void send_syn_entry_ack(SynEntry& e, Time now);
  void send_syn_ack(const SynEntry& e, Seq iss, std::uint32_t ts_val, Time now);
  // The handshake is complete: makes the connection, queues it at its listener and lets it have the segment.
  // `replaced`: what stands for the flow in the table, or none. False: no slot.
  bool establish(SynEntry& e, FlowRef replaced, Segment& s, Time now);
  static void take_entry(Connection& c, const SynEntry& e);
  void forget(SynEntry& e);  // something else stands in the flow table
  bool on_cookie_ack(Listener& l, Segment& s, std::uint32_t hash, Time now);  // cookie.cc; false: not one
  void send_cookie(const SynEntry& e, Time now);
  bool filter_out(const Segment& s, bool opens, Time now);  // true: dealt with
  bool open_fast(Listener& l, SynEntry& e, Segment& s, Time now);
  bool begin_fast(Listener& l, SynEntry& e, Segment& s, Time now);
  [[nodiscard]] FastOpenCookie fast_open_cookie(const Listener& l, const FlowKey& key) const;
  std::size_t count_fast_opens(const Listener& l, Time now);

  Tcp& tcp_;
  const Options& options_;
  Stats& stats_;
  FlowTable table_;  // of the listeners
  std::array<SynList, kSynLists> lists_;
  SipKey cookie_key_, fast_open_key_;
  Time cookies_until_{};  // SYN cookies are taken until then
  Filter filter_;
  std::vector<FastOpen> fast_opens_;  // that listeners have accepted and whose SYN may not be acknowledged yet
  std::function<bool(const Endpoint&)> expected_;
  Endpoint last_expected_{};
  Time expected_since_{}, next_question_{};
};

}  // namespace mtcp::stack
