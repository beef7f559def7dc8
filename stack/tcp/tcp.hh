// TCP of one worker. The state is here; each group of member functions is in the file named above it. Private
// to stack/: the world sees worker.hh.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "stack/base/slab.hh"
#include "stack/ip/network.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/packet/tx_queue.hh"
#include "stack/tcp/fast_open.hh"
#include "stack/tcp/flow_table.hh"
#include "stack/tcp/memory.hh"
#include "stack/tcp/receiver/receiver.hh"
#include "stack/tcp/sender/sender.hh"
#include "stack/tcp/urgent.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/tcp_options.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

struct HandoverConnection;
struct HandoverHalfOpen;
struct HandoverHead;
struct SynEntry;
struct SynTerms;
struct TimeWaitEntry;

class Tcp {
 public:
  Tcp(const Options& options, Port* port, PacketPool& pool, Stats& stats, const Secrets& secrets, Time now,
      KernelNetwork* kernel);
  ~Tcp();

  // --- tcp.cc: the loop, slabs, events
  std::size_t poll(Time now);
  void flush(Time now);
  void demultiplex(Segment& s, std::uint32_t hash, Time now);  // flow table, then listeners, then RST
  void on_new_flow(Segment& s, std::uint32_t hash, Time now);
  [[nodiscard]] FlowRef find_flow(const FlowKey& key, std::uint32_t hash) const;
  // Data waits in `tx` for its companions: sends them once there is a burst of them.
  void transmit_bursts(Time now) {
    if (tx.size() >= Sender::kTxBurst) transmit(now);
  }
  void transmit(Time now);  // what is queued for the device
  [[nodiscard]] bool pending() const;
  [[nodiscard]] bool must_poll() const;
  [[nodiscard]] Time next_deadline() const;
  std::size_t receive_burst(Time now);
  std::size_t receive_loopback(Time now);
  void dispatch_batch(Time now);
  std::size_t run_timers(Time now);
  void run_timer(TimerNode& node, Time now);
  // A connection in CLOSED, not in the flow table yet; null without a slot.
  Connection* new_connection(const FlowKey& key, std::uint32_t hash, const Path& path,
                             const SocketOptions& options, Time now);
  void destroy(Connection& c);      // leaves the flow table, frees packets, timers, slot
  void leave_table(Connection& c);  // and gives the port back
  void free_packets(Connection& c);
  void raise(SocketBase& s, std::uint8_t edges);  // puts it in the event list
  [[nodiscard]] static ConnectionExtras* need_extras(Connection& c);  // null: no memory
  // The connection is over: error for the application (ok: none), state CLOSED; destroyed if detached.
  void finish(Connection& c, Errc error);
  void request_ack(Connection& c);  // an ACK leaves with the next flush
  // Exact address, then the wildcard of its family, then :: for IPv4; `hash` spreads flows over SO_REUSEPORT
  // groups. `left`: among those that the application has left to another process, else among the others.
  [[nodiscard]] Listener* find_listener(const Endpoint& local, std::uint32_t hash, bool left = false);

  // --- memory.cc: packets are shared by all connections
  void update_memory(Time now);  // for each burst; for each write MemoryBudget::update() alone
  void reclaim(Time now);        // those who hold most give back; may end any connection
  void reclaim_from_living(Time now);
  // The same bytes in a little packet of our own, so that they do not hold a whole one of the pool's; or `p` as it is.
  Packet* shrink(Packet* p);
  // What a connection's data out of order takes of packet buffers has changed.
  void account_out_of_order(Connection& c, std::int64_t bytes);

  // --- sharing.cc: other stacks on the same device (stack/steering, Port)
  bool forward_unknown(Segment& s, Time now);  // another stack may know the flow: takes the packet (true)
  bool offer(Packet*& p, const FlowKey& key, bool opens, Time now);
  void publish_flows();
  void publish(SynEntry& e);
  void enter_table(Connection& c);   // it stands in the flow table: its peer is told if this process dies
  void forget_flow(const Connection& c);
  void update_serving();  // the listeners have changed: what the others should send here
  void note_listener(const Listener& l);
  void tell_orphans(Time now);
  void give_way(Time now);  // resets all connections
  void tell_orphan(const FlowKey& key, Time now);

  // --- handover.cc: connections that nobody here accepts go to another stack of the device
  void leave_listener(Listener& l, Time now);
  void return_to(Listener& l);
  void set_watched(Listener& l, bool watched);
  // `l` was left, and nobody else takes connections to `local` yet.
  [[nodiscard]] bool takes_new(const Listener& l, const Endpoint& local, Time now) const;
  void hand_over_waiting(Time now);
  [[nodiscard]] bool still_held(const Listener& l) const;
  Time tend_listener(Listener& l, Time now);
  std::size_t end_listeners(bool last_try, Time now);  // the process ends
  enum class Handover : std::uint8_t { done, refused, impossible };
  struct Destination {
    std::optional<std::uint32_t> stack = std::nullopt;  // none: whoever has the listener ...
    bool may_wait = false;                              // ... or will have it
  };
  Handover migrate(Connection& c, const Destination& to, Time now);
  std::uint32_t migrate_queue(Listener& l, const Destination& to, std::uint32_t most, Time now);
  void migrate_half_open(Listener& l, bool may_wait, Time now);
  void serve_pull(const Packet& p, Time now);
  void reset_unaccepted(Listener& l, Duration patience, Time now);
  void vanish(Connection& c);

  // --- adopt.cc: those that come from another stack
  void receive_handover(Packet* p, Time now);
  [[nodiscard]] Listener* find_adopter(const FlowKey& key, std::uint32_t hash);
  bool make_way(const FlowKey& key, std::uint32_t hash);
  void adopt(const HandoverConnection& m, Time now);
  void adopt_half_open(const HandoverHalfOpen& m, Time now);
  void adopt_data(const HandoverHead& head, Packet*& p, Time now);
  void restore(Connection& c, const HandoverConnection& m, Time now);
  void complete_adoption(Connection& c, Time now);
  [[nodiscard]] bool is_arriving(const Connection& c) const;
  void forget_adoption(const Connection& c);
  void abandon_adoptions(Time now);
  void refuse_adoption(const HandoverConnection& m, Time now);

  // --- listen.cc, syn_entry.hh, cookie.cc: passive opens (RFC 9293 3.10.7.2, 3.10.7.4; RFC 4987)
  Result<Listener*> listen(const Endpoint& local, const Worker::ListenOptions& options);
  void close_listener(Listener& l, Time now);
  [[nodiscard]] bool left_to_another(const Segment& s) const;
  Connection* accept(Listener& l);
  void on_listen(Listener& l, Segment& s, std::uint32_t hash, Time now);
  void on_syn_entry(SynEntry& e, Segment& s, Time now);
  // `isn`: beyond the TIME-WAIT that this SYN replaces, or null.
  void on_syn(Listener& l, Segment& s, std::uint32_t hash, const Seq* isn, Time now);
  // --- filter.cc: who may open connections (FilterRule)
  bool filter_out(const Segment& s, bool opens, Time now);  // true: dealt with
  void refuse(const Segment& s, Time now);                  // a reset, unless the filter says otherwise
  enum class Admission : std::uint8_t { queue, cookie, drop };
  Admission admit_syn(const Listener& l, bool recycled);
  bool check_syn_entry(SynEntry& e, Segment& s, Time now);
  void send_syn_entry_ack(SynEntry& e, Time now);
  bool on_cookie_ack(Listener& l, Segment& s, std::uint32_t hash, Time now);  // cookie.cc; false: not one
  void send_cookie(const SynEntry& e, Time now);
  void send_syn_ack(const SynEntry& e, Seq iss, std::uint32_t ts_val, Time now);
  // The handshake is complete: makes the connection, queues it at its listener and lets it have the segment.
  // `replaced`: what stands for the flow in the table, or none. False: no slot.
  bool establish(SynEntry& e, FlowRef replaced, Segment& s, Time now);
  static void take_entry(Connection& c, const SynEntry& e);
  void queue_for_accept(Listener& l, Connection& c);
  void drop_syn_entry(SynEntry& e);    // leaves the flow table, too
  void forget_syn_entry(SynEntry& e);  // something else stands in the flow table
  void schedule_syn_entry(SynEntry& e, Time now);  // its next SYN-ACK, by its retries
  void run_syn_timers(Time now);

  // --- fast_open.cc (RFC 7413)
  bool open_fast(Listener& l, SynEntry& e, Segment& s, Time now);
  bool begin_fast(Listener& l, SynEntry& e, Segment& s, Time now);
  void answer_fast_open(Connection& c, const Listener* l, Time now);
  [[nodiscard]] static bool awaits_ack_of_syn(const Connection& c);
  [[nodiscard]] FastOpenCookie fast_open_cookie(const Listener& l, const FlowKey& key) const;
  std::size_t count_fast_opens(const Listener& l, Time now);
  void note_fast_open_reset(const Connection& c, Time now);
  [[nodiscard]] bool is_fast_open_ready(const IpAddress& local, const IpAddress& remote, const SocketOptions& o, Time now) const;
  void send_fast_open_syn(Connection& c, FastOpenStart& start, Time now);
  void finish_fast_open(Connection& c, Segment& s, Time now);

  // --- metrics.cc
  void save_metrics(const Connection& c, Time now);
  void recall_metrics(Connection& c, Time now) const;

  // --- ecn.cc (RFC 3168)
  [[nodiscard]] bool offers_ecn(const Connection& c) const;
  [[nodiscard]] bool accepts_ecn(const Listener& l, const Segment& syn) const;
  [[nodiscard]] bool needs_ecn(const SocketOptions& o) const;
  void echo_each(Connection& c, bool marked, Time now);
  void on_ecn(Connection& c, const Segment& s, Time now);  // what a segment says that has been accepted
  std::uint8_t mark_ecn(Connection& c, Packet& p, Seq seq, std::uint8_t flags);  // of what is to be sent

  // --- connect.cc, isn.cc, ports.cc: active opens (RFC 9293 3.10.1, 3.10.7.3; RFC 6528; RFC 6056)
  Result<Connection*> connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& options,
                              Time now, FastOpenStart* start = nullptr);
  Errc claim_flow(const FlowKey& key, std::uint32_t hash, std::optional<Seq>& isn, Time now);
  Errc choose_local_port(FlowKey& key, std::uint32_t& hash, bool& published, std::optional<Seq>& isn, Time now);
  void on_syn_sent(Connection& c, Segment& s, Time now);
  void on_syn_ack(Connection& c, Segment& s, Time now);
  void on_crossed_syn(Connection& c, Segment& s, Time now);
  Seq choose_isn(const FlowKey& key, Time now) const;
  std::uint32_t choose_ts_offset(const FlowKey& key) const;
  [[nodiscard]] std::uint64_t destination_id(const FlowKey& key) const;  // of all but the local port
  // Common end of all opens: options of the peer's SYN into the connection, windows, buffers, ESTABLISHED.
  // Expects iss, irs, snd_una, snd_nxt, rcv_nxt, and hot.rcv_wscale to be what we offered.
  void apply_syn_options(Connection& c, const TcpOptions& peer, std::uint32_t peer_window,
                         bool window_is_scaled, bool ecn, Time now);
  void apply_terms(Connection& c, const SynTerms& terms, std::uint32_t peer_window, bool window_is_scaled,
                   Time now);
  // The MSS that our SYN announces, from the path (RFC 9293 3.7.1, RFC 6691) and TCP_MAXSEG.
  [[nodiscard]] static std::uint16_t local_mss(const Path& path, const FlowKey& key, const SocketOptions& o);

  // --- time_wait.cc (RFC 9293 3.6; RFC 6191; RFC 1337)
  void enter_time_wait(Connection& c,
                       Time now);  // replaces the connection by an entry; destroys it if detached
  void on_time_wait(std::uint32_t index, Segment& s, std::uint32_t hash, Time now);
  void append_time_wait(std::uint32_t index, Time now);
  void unlink_time_wait(TimeWaitEntry& e);
  void drop_time_wait(std::uint32_t index);
  void send_time_wait_ack(const TimeWaitEntry& e, Time now);
  [[nodiscard]] bool may_answer(TimeWaitEntry& e, const Segment& s, Time now);
  void run_time_wait_timers(Time now);
  [[nodiscard]] Time time_wait_deadline() const;
  [[nodiscard]] bool time_wait_reusable(const TimeWaitEntry& e, Time now) const;  // for a connect

  // --- close.cc: RFC 9293 3.10.4, 3.10.5 and what FIN does to the states
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
  void on_unreachable(const IpAddress& next_hop);
  void on_neighbour_moved(const IpAddress& next_hop, Time now);
  void follow_kernel(Time now);
  void follow_mtu(std::uint32_t mtu, Time now);
  void follow_routes(Time now);
  // The application has let go. Orphans are bounded: past that the connection is reset, and gone (false).
  bool detach(Connection& c, Time now);

  // --- reset.cc: RST (RFC 9293 3.5.2, RFC 5961)
  void send_reset_for(const Segment& s, Time now);  // in answer to a segment that has no connection
  void send_reset(Connection& c, Time now);         // abort of a connection
  // RFC 5961 sections 3 and 4: RST or SYN on a synchronized connection. True: the segment has been dealt with
  // (`c` may be gone). The segment's sequence number has not been checked yet.
  bool on_reset_or_syn(Connection& c, Segment& s, Time now);
  // The wire's only peer has ended (Port::take_peer_end), just now or before: as if it had reset its connections.
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
  Port* port;
  const bool sums_payload;  // checksums are filled in here, and begun where the payload is copied
  PacketCache cache;
  MemoryBudget memory;
  HeapPool little_packets;  // shrink()
  TxQueue tx;
  Network network;
  TimerWheel wheel;
  FlowTable flows;
  Slab<Connection> connections;
  IntrusiveList<SocketBase, &SocketBase::event_hook> events;
  IntrusiveList<Connection, &Connection::ack_hook> acks;
  Receiver receiver;
  Sender sender;
  // The rest (SYN entries, TIME-WAIT entries, listeners, ports, challenge-ACK budget) belongs to the files
  // that use it.
  struct Private;
  std::unique_ptr<Private> priv;
};

}  // namespace mtcp::stack
