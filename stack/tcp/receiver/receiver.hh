// The receiving half of TCP: payload and FIN in order and out of order, what of it is told to the peer and when, the
// window, the application's reads. The state of each connection is Connection::rx and the receiver's part of
// Connection::hot.
#pragma once

#include <cstdint>
#include <span>

#include "stack/tcp/connection.hh"
#include "stack/tcp/receiver/islands.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp;

class Receiver {
 public:
  explicit Receiver(Tcp& tcp, std::uint64_t seed);
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  // --- payload.cc: RFC 9293 3.10.7.4, sixth to eighth step
  // Whoever takes s.packet sets it to null; demultiplex() frees what is left. False: the connection is gone.
  bool on_payload(Connection& c, Segment& s, Time now);
  void enqueue_in_order(Connection& c, Packet*& p);
  bool accept_fin(Connection& c, Time now);  // false: the connection is gone

  // --- reassembly.cc: data out of order
  void drain_out_of_order(Connection& c);  // what RCV.NXT has reached is in order now
  void prune_out_of_order(Connection& c);  // gives up what it holds: packets are scarce
  void free_out_of_order(Connection& c);   // the same at its end
  void note_duplicate(Connection& c, Seq begin, Seq end);  // RFC 2883

  // --- acknowledge.cc: when an ACK leaves
  void on_delayed_ack_timer(Connection& c, Time now);
  void acknowledge_out_of_order(Connection& c, Time now);
  // The peer sends what we have: an ACK was lost, or its timeout is too short.
  void acknowledge_quickly(Connection& c);
  // A segment leaves, and with it an ACK and a window.
  void note_ack_sent(Connection& c) {
    auto& rx = c.rx;
    c.hot.last_ack_sent = c.hot.rcv_nxt;
    c.hot.ack_now = false;
    rx.pushed = 0;
    wheel_.cancel(c.delayed_ack_timer);
    if (rx.quickack_left > 0 && --rx.quickack_left == 0 && rx.ato != 0) rx.ato = kLeastDelay;
  }

  // --- window.cc: windows and the receive buffer: how they begin, what is announced, how they grow
  // Once hot.mss, the windows and scales are known.
  void start(Connection& c, Time now);
  void resize_buffer(Connection& c);
  // Bytes to announce: SWS avoidance (RFC 9293 3.8.6.2.2), never shrinks.
  std::uint32_t receive_window(Connection& c);
  // Shift that lets the largest receive buffer be announced (RFC 7323 section 2); for SYN and SYN-ACK.
  [[nodiscard]] std::uint8_t choose_window_scale(const SocketOptions& o) const;
  // The window of a SYN or SYN-ACK: bytes, not scaled, at most 65535.
  [[nodiscard]] std::uint32_t initial_window(const SocketOptions& o) const;

  // --- read.cc: the application's reads (worker.hh)
  Result<std::size_t> receive(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now);

  // --- urgent.cc: urgent data, and where it is in the stream (worker.hh); urgent.hh
  Result<std::size_t> receive_urgent(Connection& c, std::byte* byte, bool peek);
  [[nodiscard]] bool has_urgent(const Connection& c) const;
  [[nodiscard]] bool at_mark(const Connection& c) const;
  // Bytes in order that a read can get in one piece; of those at the mark, the urgent one is none.
  [[nodiscard]] std::uint32_t readable_before_mark(const Connection& c) const;
  // When the last of the next `bytes` came that a read would get; zero: there are none.
  [[nodiscard]] Time arrival_of(const Connection& c, std::size_t bytes) const;
  [[nodiscard]] bool skips_next(const Connection& c) const;

 private:
  static constexpr std::uint16_t kLeastDelay = 40;  // ms: Linux's TCP_ATO_MIN
  // Payload up to this size is copied behind the packet before it, rather than hold a whole buffer.
  static constexpr std::uint32_t kTiny = 256;

  bool trim_to_window(Connection& c, Segment& s);
  bool accept_in_order(Connection& c, Segment& s, Time now);
  void insert_out_of_order(Connection& c, Segment& s);
  bool trim_known(Connection& c, Packet& p);
  bool make_room(Connection& c, std::uint32_t bytes, std::uint32_t limit, Seq seq);
  [[nodiscard]] std::uint32_t memory_for(const Packet& p, const Island* island) const;
  bool append(Connection& c, Island& i, Packet*& p);
  void join(Connection& c, std::uint32_t index, std::uint32_t next);
  void drop_island(Connection& c, std::uint32_t index);
  std::uint32_t create_island(Connection& c, Seq seq);
  void drop_last(Connection& c);
  bool enqueue_bytes(Connection& c, std::span<const std::byte> bytes);
  void note_sack(Connection& c, Seq begin, Seq end);
  void schedule_ack(Connection& c, Time now);
  void adapt_delay(Connection& c, std::uint32_t clock);
  void add_quick_acks(Connection& c);
  [[nodiscard]] std::uint32_t rto_of(const Connection& c) const;    // ms
  [[nodiscard]] std::uint32_t delay_of(const Connection& c) const;  // ms
  Result<std::size_t> take(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now);
  Result<std::size_t> take_around_mark(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now);
  static Result<std::size_t> nothing_there(Connection& c);
  void on_urgent(Connection& c, const Segment& s, Time now);
  void after_read(Connection& c, std::uint32_t copied, Time now);
  void measure_reader(Connection& c, std::uint32_t copied, Time now);
  [[nodiscard]] bool copies(const Connection& c, const Packet& last, std::uint32_t n) const;
  // What the memory budget leaves of the limits in buffers.hh: bytes of packets.
  [[nodiscard]] std::uint32_t receive_limit(const Connection& c) const;
  [[nodiscard]] std::uint32_t out_of_order_limit(const Connection& c) const;

  // What it uses of the worker's TCP.
  Tcp& tcp_;
  const Options& options_;
  Stats& stats_;
  PacketCache& cache_;
  TimerWheel& wheel_;
  Islands islands_;
};

}  // namespace mtcp::stack
