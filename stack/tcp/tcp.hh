// TCP of one worker: the loop, the flow table, and what happens to a segment of a connection (RFC 9293 3.10.7.4). What has a
// subject of its own is a class of its own, in a folder: opens of both kinds, the receiving and the sending half, TIME-WAITs,
// other stacks of the same device and what goes to them. Each group of member functions is in the file named above it.
// Private to stack/: the world sees worker.hh.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "stack/base/slab.hh"
#include "stack/ip/network.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/tcp/active/active_opens.hh"
#include "stack/tcp/closing/time_waits.hh"
#include "stack/tcp/fast_open.hh"
#include "stack/tcp/flow_table.hh"
#include "stack/tcp/memory.hh"
#include "stack/tcp/migration/migration.hh"
#include "stack/tcp/migration/other_stacks.hh"
#include "stack/tcp/passive/passive_opens.hh"
#include "stack/tcp/receiver/receiver.hh"
#include "stack/tcp/sender/sender.hh"
#include "stack/tcp/urgent.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/tcp_options.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp {
 public:
  Tcp(const Options& options, const Attachment& device, PacketPool& pool, Stats& stats, const Secrets& secrets, Time now,
      KernelNetwork* kernel);
  ~Tcp();

  // --- tcp.cc: the loop, slabs, events
  std::size_t poll(Time& now, Clock clock);  // `clock` may be null
  void flush(Time now);
  void demultiplex(Segment& s, std::uint32_t hash, Time now);  // flow table, then listeners, then RST
  void on_new_flow(Segment& s, std::uint32_t hash, Time now);
  [[nodiscard]] FlowRef find_flow(const FlowKey& key, std::uint32_t hash) const;
  // Data waits in `tx` for its companions: sends them once there is a burst of them.
  void transmit_bursts(Time now) {
    if (tx.size() >= tx_burst) transmit(now);
  }
  void transmit(Time now);  // what is queued for the device
  [[nodiscard]] bool pending() const;
  [[nodiscard]] bool must_poll() const;
  [[nodiscard]] Time next_deadline() const;
  std::size_t receive_burst(Time& now, Clock clock);
  std::size_t receive_loopback(Time now);
  void dispatch_batch(Time now);
  std::size_t run_timers(Time now);
  void run_timer(TimerNode& node, Time now);
  // A connection in CLOSED, not in the flow table yet; null without a slot.
  Connection* new_connection(const FlowKey& key, std::uint32_t hash, const Path& path,
                             const SocketOptions& options, Time now);
  void raise(SocketBase& s, std::uint8_t edges);  // puts it in the event list
  void request_ack(Connection& c);  // an ACK leaves with the next flush
  // What the kernel, or the neighbours, have changed.
  void follow_kernel(Time now);
  void follow_mtu(std::uint32_t mtu, Time now);
  void follow_routes(Time now);
  void on_neighbour_moved(const IpAddress& next_hop, Time now);

  // --- memory.cc: packets are shared by all connections
  void update_memory(Time now);  // for each burst; for each write MemoryBudget::update() alone
  void reclaim(Time now);        // those who hold most give back; may end any connection
  void reclaim_from_living(Time now);
  // The same bytes in a little packet of our own, so that they do not hold a whole one of the pool's; or `p` as it is.
  Packet* shrink(Packet* p);
  // What a connection's data out of order takes of packet buffers has changed.
  void account_out_of_order(Connection& c, std::int64_t bytes);

  // --- ecn.cc (RFC 3168)
  [[nodiscard]] bool offers_ecn(const Connection& c) const;
  [[nodiscard]] bool accepts_ecn(const Listener& l, const Segment& syn) const;
  [[nodiscard]] bool needs_ecn(const SocketOptions& o) const;
  void echo_each(Connection& c, bool marked, Time now);
  void on_ecn(Connection& c, const Segment& s, Time now);  // what a segment says that has been accepted
  std::uint8_t mark_ecn(Connection& c, Packet& p, Seq seq, std::uint8_t flags);  // of what is to be sent

  // --- isn.cc (RFC 6528, RFC 7323 section 5.4)
  [[nodiscard]] Seq choose_isn(const FlowKey& key, Time now) const;
  [[nodiscard]] std::uint32_t choose_ts_offset(const FlowKey& key) const;

  // --- open.cc
  // Common end of all opens: options of the peer's SYN into the connection, windows, buffers, ESTABLISHED.
  // Expects iss, irs, snd_una, snd_nxt, rcv_nxt, and hot.rcv_wscale to be what we offered.
  void apply_syn_options(Connection& c, const TcpOptions& peer, std::uint32_t peer_window,
                         bool window_is_scaled, bool ecn, Time now);
  void apply_terms(Connection& c, const SynTerms& terms, std::uint32_t peer_window, bool window_is_scaled,
                   Time now);
  // The MSS that our SYN announces, from the path (RFC 9293 3.7.1, RFC 6691) and TCP_MAXSEG.
  [[nodiscard]] static std::uint16_t local_mss(const Path& path, const FlowKey& key, const SocketOptions& o);

  // --- closing/close.cc: RFC 9293 3.10.4, 3.10.5 and what FIN does to the states
  void shutdown(Connection& c, bool read, bool write, Time now);
  void close(Connection& c, Time now);
  void abort(Connection& c, Time now);
  void abort_orphans(Time now);
  void queue_fin(Connection& c, Time now);  // after the data
  void await_fin(Connection& c, Time now);  // FIN-WAIT-2 without an application
  void on_fin_received(Connection& c,
                       Time now);              // the peer's FIN is in order: ESTABLISHED -> CLOSE-WAIT, ...
  void on_fin_acked(Connection& c, Time now);  // ours is acknowledged: FIN-WAIT-1 -> FIN-WAIT-2, ...
  void on_icmp(IcmpError& e, Time now);  // takes the packet
  void on_icmp(FlowRef ref, const IcmpError& e, Time now);
  // The application has let go. Orphans are bounded: past that the connection is reset, and gone (false).
  bool detach(Connection& c, Time now);

  // --- closing/end.cc
  void destroy(Connection& c);      // leaves the flow table, frees packets, timers, slot
  void leave_table(Connection& c);  // and gives the port back
  void free_packets(Connection& c);
  [[nodiscard]] static ConnectionExtras* need_extras(Connection& c);  // null: no memory
  // The connection is over: error for the application (ok: none), state CLOSED; destroyed if detached.
  void finish(Connection& c, Errc error);

  // --- closing/reset.cc: RST (RFC 9293 3.5.2, RFC 5961)
  void send_reset_for(const Segment& s, Time now);  // in answer to a segment that has no connection
  void send_reset(Connection& c, Time now);         // abort of a connection
  // RFC 5961 sections 3 and 4: RST or SYN on a synchronized connection. True: the segment has been dealt with
  // (`c` may be gone). The segment's sequence number has not been checked yet.
  bool on_reset_or_syn(Connection& c, Segment& s, Time now);
  // The wire's only peer has ended (Port::Link), just now or before: as if it had reset its connections.
  void follow_peer(bool just_ended);
  void end_connections_of_peer();
  void send_challenge_ack(Connection& c, Time now);
  [[nodiscard]] bool take_challenge_budget(Time now);
  [[nodiscard]] bool may_answer(Time& last_answer, Time now);

  // --- input.cc: RFC 9293 3.10.7.4, in the order of its steps, for synchronized states and SYN-RECEIVED
  void on_segment(Connection& c, Segment& s, Time now);
  bool check_unusual(Connection& c, Segment& s, Time now);  // steps 1 to 4; false: dealt with
  void answer_unacceptable(Connection& c, const Segment& s, Time now);
  bool complete_simultaneous_open(Connection& c, Segment& s, Time now);

  // --- urgent.hh: made with the first urgent byte of a connection. Null: there was none.
  [[nodiscard]] static Urgent* urgent_of(Connection& c);  // made if there is none; null: no memory
  [[nodiscard]] static const Urgent* find_urgent(const Connection& c);

  // --- receiver/, sender/: what their files have in common
  // The last step of every open, when hot.mss, the windows and scales are known: buffers, cwnd, congestion
  // control.
  void init_transfer(Connection& c, Time now);
  void resize_buffers(Connection& c);

  // --- headers.cc: the headers of what is sent
  // Of an ordinary segment. It carries an ACK and a window, so nothing is owed afterwards.
  void write_header(Connection& c, Packet& p, Seq seq, std::uint8_t flags, Time now);
  void send_ack(Connection& c, Time now);    // a pure ACK, now
  void send_probe(Connection& c, Time now);  // one that the peer must answer: an old sequence number
  void send_syn(Connection& c, Time now);    // SYN, or SYN-ACK in SYN-RECEIVED of a simultaneous open
  // A packet with a TCP header and no payload, ready for Network::output_tcp; null if the pool is empty.
  struct Header {
    FlowKey key;
    Seq seq, ack;
    std::uint8_t flags = 0;
    std::uint8_t tos = 0, ttl = 0;  // of the IP header; ttl 0: the usual one
    std::uint32_t window = 0;  // as on the wire
    bool timestamps = false;
    std::uint32_t ts_val = 0, ts_ecr = 0;
    std::uint16_t mss = 0;        // SYN: MSS option; 0: none
    int window_scale = -1;        // SYN: -1: none
    bool sack_permitted = false;  // SYN
    const FastOpenCookie* fast_open = nullptr;  // SYN; null: none
  };
  // False: no packet.
  bool send_bare(const Header& h, const Path& path, TxPriority priority, Time now, std::span<const std::byte> payload = {});
  [[nodiscard]] Header syn_header(const Connection& c, bool answer, Time now) const;
  // RFC 7323: milliseconds.
  [[nodiscard]] static std::uint32_t ts_clock(Time now) { return static_cast<std::uint32_t>(TimerWheel::tick_of(now)); }

  // --- timers.cc: keep-alive, FIN-WAIT-2
  void on_life_timer(Connection& c, Time now);
  void on_keepalive(Connection& c, Time now);
  void arm_keepalive(Connection& c, Time now);

  // --- info.cc: what the socket layer asks
  [[nodiscard]] Readiness readiness(const Connection& c) const;
  [[nodiscard]] Readiness readiness(const Listener& l) const;
  void set_options(Connection& c, const SocketOptions& options, Time now);
  [[nodiscard]] ConnectionInfo info(const Connection& c) const;
  [[nodiscard]] std::size_t readable_bytes(const Connection& c) const;
  [[nodiscard]] std::size_t writable_bytes(const Connection& c) const;
  [[nodiscard]] bool drained(const Connection& c) const;

  const Options& options;
  Stats& stats;
  Secrets secrets;
  Port* const port;
  const std::size_t tx_burst;  // Port::tx_burst
  Steering* const steering;
  KernelShare* const kernel_share;
  const bool sums_payload;  // checksums are filled in here, and begun where the payload is copied
  PacketCache cache;
  MemoryBudget memory;
  HeapPool little_packets;  // under pressure
  TxQueue tx;
  Network network;
  TimerWheel wheel;
  FlowTable flows;
  Slab<Connection> connections;
  IntrusiveList<SocketBase, &SocketBase::event_hook> events;
  IntrusiveList<Connection, &Connection::ack_hook> acks;
  PassiveOpens passive;
  ActiveOpens active;
  Receiver receiver;
  Sender sender;
  TimeWaits time_waits;
  OtherStacks others;
  Migration migration;
  // The rest (keys, challenge-ACK budget, who holds most memory) belongs to the files that use it.
  struct Private;
  std::unique_ptr<Private> priv;
};

}  // namespace mtcp::stack
