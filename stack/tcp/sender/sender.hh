// The sending half of TCP: what has been written and is not acknowledged, what of it is lost, what may leave now. The
// state of each connection is Connection::tx and the sender's part of Connection::hot.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "stack/base/intrusive_list.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/tcp/connection.hh"
#include "stack/tcp/sender/pacing.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class ExternalMemory;
class Network;
class Tcp;
struct AckSample;

class Sender {
 public:
  explicit Sender(Tcp& tcp);
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;
  ~Sender();

  // --- buffer.cc: a connection begins, its send buffer, who waits for room in it
  // Once hot.mss, the windows and scales are known.
  void start(Connection& c, Time now);
  void resize_buffer(Connection& c);
  void on_options(Connection& c, const SocketOptions& old, Time now);  // they have changed
  void free_queue(Connection& c);
  static void end_waits(Connection& c, Time now);  // before that
  // What the memory budget leaves of the limits in buffers.hh.
  [[nodiscard]] std::uint32_t send_room(const Connection& c) const;  // bytes
  [[nodiscard]] bool is_writable(const Connection& c) const;
  static void note_wait(Connection& c, Connection::Waits::For what, Time now);
  void wake_writer(Connection& c, Time now) {  // if a write found too little room and there is enough now
    if (c.hot.wake_writer) wake_if_writable(c, now);
  }

  // --- send.cc: the application's writes (worker.hh)
  Result<std::size_t> send(Connection& c, std::span<const iovec> data, bool more, Time now);
  static void end_record(Connection& c);  // MSG_EOR
  // Fast Open: the data that goes with the SYN, at most `most` bytes; and that goes again, unless it has been acknowledged.
  std::span<const std::byte> queue_syn_data(Connection& c, std::span<const iovec> data, std::uint32_t most, Time now);
  void rewind_syn_data(Connection& c);
  Result<std::size_t> reserve(Connection& c, std::size_t bytes, std::span<iovec> out, Time now);
  void commit(Connection& c, std::size_t bytes, bool more, Time now);
  // --- external.cc: payload that is not copied (worker.hh)
  [[nodiscard]] bool takes_external(const Connection& c) const;
  Result<std::size_t> send_external(Connection& c, ExternalMemory& memory, std::uint32_t offset, std::size_t bytes, bool more, Time now);

  // --- send.cc again
  // "Fragmentation needed" (RFC 1191): bytes, IP packet.
  void on_path_mtu(Connection& c, std::uint32_t mtu, Time now);
  // Cuts `p` after `at` bytes. False: not possible now.
  bool split(Connection& c, Packet* p, std::uint32_t at);
  // `p`, which is shorter, gets what it lacks to `full` bytes of what follows it; nothing of that has been sent.
  void fill(Connection& c, Packet* p, std::uint32_t full);

  // --- output.cc: what may be sent now (Nagle, cork, SWS)
  // Sends what windows and Nagle allow, FIN included. `override`: neither Nagle nor cork holds anything back.
  void push(Connection& c, Time now, bool override = false) {
    // Asked for every segment that comes, and mostly there is nothing.
    const bool nothing = c.tx.unsent == nullptr && c.tx.scoreboard == nullptr && (!c.hot.fin_queued || c.hot.fin_sent);
    if (!nothing) push_waiting(c, now, override);
  }
  bool must_stop(Connection& c);  // the device does not keep up: push_blocked() comes back to it
  void push_blocked(Time now);    // those that found the transmit queue full; after it was flushed
  // First time or again; false: it is still with the device.
  bool transmit(Connection& c, Packet* p, Time now);
  void send_fin(Connection& c, Time now);  // a FIN without data, unless the last of it still waits for the device
  bool send_fin_with_data(Connection& c);
  void release(Packet* p);                 // frees, also what the device still reads

  // --- stamps.cc: when it was sent and acknowledged (worker.hh)
  bool want_stamps(Connection& c, std::uint8_t kinds, bool with_frames);  // false: no memory
  [[nodiscard]] static bool has_stamps(const Connection& c);
  static bool take_stamp(Connection& c, StampReport& report);

  // --- urgent.cc: urgent data (worker.hh), and what the headers say of it
  Result<std::size_t> send_urgent(Connection& c, std::span<const iovec> data, bool more, Time now);

  // --- ack.cc: RFC 9293 3.10.7.4, fifth step. False: the segment is dropped, or the connection is gone.
  bool on_ack(Connection& c, Segment& s, Time now);
  void reduce_for_ecn(Connection& c, Time now);  // recovery.cc: the network is about to lose something
  static void end_timeouts(Connection& c, Time now);  // something was acknowledged, or they were needless
  void take_rtt_sample(Connection& c, Duration rtt, Time now);  // of the handshake

  // --- retransmit.cc, probe.cc, rto.hh: RFC 6298, zero-window probes, giving up
  void on_retransmit_timer(Connection& c, Time now);
  // The one that a socket with these options has.
  [[nodiscard]] const CongestionControl& control_for(const SocketOptions& o) const;
  void arm_retransmit(Connection& c, Time now);
  static void note_timeout(Connection& c, Time now);  // as Linux's tcp_update_rto_stats
  void arm_probe(Connection& c, Time now);  // nothing in flight and something to send: persist timer

  // --- pacing.cc: those whose packets leave at a rate
  [[nodiscard]] bool pacing_due(Time now) const { return pacing_timers_.due(now); }
  [[nodiscard]] Time pacing_deadline() const { return pacing_timers_.next(); }
  std::size_t run_pacing(Time now);
  void measure_delivery(Connection& c);  // its rate, for tcp_info, from now on
  [[nodiscard]] static std::uint64_t window_rate(const Connection& c);  // bytes a second, without a model

  IntrusiveList<Connection, &Connection::push_hook> blocked;
  bool device_full = false;  // it took less than it was offered in this turn: no use in asking again

 private:
  // --- buffer.cc
  void wake_if_writable(Connection& c, Time now);

  // --- ack.cc
  bool on_odd_ack(Connection& c, Segment& s, Time now);
  void on_window_opened(Connection& c);
  void on_all_acked(Connection& c);
  void remove_acked(Connection& c, Seq ack, AckSample& a, Time now);
  void on_marked_acked(Connection& c, const Packet& p, bool whole, std::uint32_t n, AckSample& a, Time now);
  void sample_rtt(Connection& c, const Segment& s, const AckSample& a, Time now);
  void finish_ack(Connection& c, const AckSample& a, Time now);

  // --- sack.cc, scoreboard.hh
  bool need_scoreboard(Connection& c);  // false: nothing is in flight, or no memory
  void rebuild_scoreboard(Connection& c);
  void drop_scoreboard(Connection& c);
  void forget_marks(Connection& c);
  static void count_left(Connection& c);  // hot.left_network, after marks have changed
  void take_sack(Connection& c, const Segment& s, AckSample& a, Time now);
  void mark_sacked(Connection& c, const SackBlock& block, AckSample& a, Time now);
  void on_dsack(Connection& c, const Segment& s, AckSample& a);
  static void note_reordered(AckSample& a, Seq from);
  static void adapt_to_reordering(Connection& c, const AckSample& a);

  // --- rack.cc
  static void advance_rack(Connection& c, const Packet& p, Time now);
  static Duration reordering_window(const Connection& c);
  static void adapt_reordering_window(Connection& c);
  static Duration find_late(Connection& c, Time now);
  void on_reordering_timer(Connection& c, Time now);

  // --- tail_probe.cc
  void on_tail_probe_timer(Connection& c, Time now);
  void answer_probe(Connection& c, Seq ack, const AckSample& a, Time now);

  void on_syn_ack_timer(Connection& c, Time now);

  // --- recovery.cc
  void on_unusual_ack(Connection& c, Segment& s, AckSample& a, Time now);
  void conclude(Connection& c, const Segment& s, AckSample& a, Seq una_before, Duration& wait, Time now);
  bool leave_phase(Connection& c, const Segment& s, Time now);
  static void end_episode(Connection& c);
  static void keep_open(Connection& c);
  static void begin_reduction(Connection& c, Time now);
  void enter_recovery(Connection& c, Time now);
  static void count_duplicate(Connection& c, AckSample& a);
  static void forget_duplicates(Connection& c, AckSample& a);
  void find_lost_without_sack(Connection& c, const AckSample& a);

  // --- undo.cc
  static void remember_for_undo(Connection& c);
  static void note_resent(Connection& c, std::uint32_t index, Time now);
  [[nodiscard]] static bool answers_original(const Connection& c, const Segment& s);
  [[nodiscard]] static bool was_needless(const Connection& c, const Segment& s);
  void undo_reduction(Connection& c, bool none_lost, Time now);
  bool undo_if_needless(Connection& c, const Segment& s, Time now);
  bool undo_partly(Connection& c, const Segment& s, Seq una_before, Time now);
  bool undo_if_all_came_twice(Connection& c, Time now);
  bool undo_timeout(Connection& c, const Segment& s, bool by_frto, Time now);
  bool continue_loss(Connection& c, const Segment& s, const AckSample& a, Time now);

  // --- retransmit.cc, probe.cc
  void arm(Connection& c, TimerUse use, Time when);
  void arm_within_timeout(Connection& c, TimerUse use, Duration wait, Time now);
  void arm_after_progress(Connection& c, Time now);
  [[nodiscard]] Time timeout_from_head(const Connection& c, Time now) const;
  void arm_from_head(Connection& c, Time now);
  void on_timeout(Connection& c, Time now);  // RFC 6298 section 5
  void enter_loss(Connection& c, Time now);
  void mark_lost_by_timeout(Connection& c, Time now);
  bool resend_lost(Connection& c, Time now);
  void on_syn_timer(Connection& c, Time now);
  void on_probe_timer(Connection& c, Time now);
  [[nodiscard]] bool user_timeout_expired(const Connection& c, Time now) const;
  bool give_up(Connection& c, std::uint32_t tries, Time now);  // true: the connection is over

  // --- urgent.cc
  void point_at_urgent(const Connection& c, Packet& p, Seq seq) const;
  void send_urgent_probe(Connection& c, Time now);

  // --- stamps.cc; all but the last with Connection::stamped
  static void request_stamp(Connection& c);
  void stamp_sent(Connection& c, const Packet& p, const Packet& out, Time now);
  void stamp_acked(Connection& c, Seq ack, Time now);
  void report_stamp(Connection& c, StampReport report);

  // --- output.cc, send.cc
  void push_waiting(Connection& c, Time now, bool override);
  bool push_new(Connection& c, Time now, bool override);
  static void on_fin_sent(Connection& c);
  // At least a nanosecond.
  [[nodiscard]] static Duration since(Time sent, Time now) { return std::max(now - sent, Duration(1)); }
  [[nodiscard]] static bool may_send(const Connection& c, const Packet& p, std::uint32_t full, bool override, bool& by_cwnd, bool& by_window);
  void begin_after_idle(Connection& c, Time now);
  bool cut(Connection& c, Packet* p, std::uint32_t at);
  static Errc cannot_send(Connection& c);
  inline Result<std::uint32_t> admit(Connection& c, std::size_t wanted);
  [[gnu::cold]] Errc nothing_taken(Connection& c);
  inline Result<std::size_t> end_write(Connection& c, std::uint32_t taken, std::uint32_t admitted, bool more, Time now);
  static void extend(Packet* p, std::uint32_t n);
  static void append_packet(Connection& c, Packet* p, Time now);
  static void mark_push(Connection& c, bool end_of_write);
  void finish_write(Connection& c, bool more, Time now);

  // --- external.cc
  [[nodiscard]] std::uint32_t whole_segments(const Connection& c, const Packet& p, std::uint32_t full) const;
  bool cut_to_leave(Connection& c, Packet* p, std::uint32_t full);
  void cut_into_segments(Connection& c);
  void note_segments(Connection& c, const Packet& p, Time now);

  // --- pacing.cc; all but the first with Connection::pacing
  [[nodiscard]] static bool is_paced(const Connection& c) { return c.pacing != nullptr; }
  bool prepare_pacing(Connection& c);  // false: no memory
  void drop_pacing(Connection& c);
  bool must_pace(Connection& c, Time now);
  static void note_paced(Connection& c, const Packet& p);
  static void note_app_limited(Connection& c);
  static void finish_rate_sample(Connection& c, const AckSample& a, Time now);
  void choose_control(Connection& c);

  std::vector<std::unique_ptr<Scoreboard>> spare_scoreboards_;
  PacingTimers pacing_timers_;
  Time latest_stamp_{};  // Packet::sent_at of what was sent last
  // What it uses of the worker's TCP.
  Tcp& tcp_;
  const Options& options;
  Stats& stats;
  PacketCache& cache;
  TxQueue& tx;
  Network& network;
  TimerWheel& wheel;
  Port* const port;
  const bool sums_payload;
  const CongestionControl& configured_;  // for all that have not asked for another
};

}  // namespace mtcp::stack
