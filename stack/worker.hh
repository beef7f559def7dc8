// One core's stack: the loop that turns batches of packets into batches of socket events, and the calls that the
// socket layer makes. Owns flow table, timers, pools and network; shares nothing with other workers. Not thread-safe:
// the socket layer's lock covers it. Time is always an argument and never goes back.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "stack/base/result.hh"
#include "stack/options.hh"
#include "stack/port/attachment.hh"
#include "stack/socket_base.hh"
#include "stack/stats.hh"
#include "stack/tcp/connection.hh"
#include "stack/tcp/passive/listener.hh"

namespace mtcp::stack {

class CaptureSet;
class ExternalMemory;
class KernelNetwork;
struct PortCounters;
class Tcp;

// Keys of everything that must not be guessable.
struct Secrets {
  std::array<std::uint64_t, 4> key{};  // of this process, or of all that share the device: cookies, table hashes
  // Outlives them, so that the next one's sequence numbers are beyond this one's (RFC 6528): ISNs, ports.
  std::array<std::uint64_t, 4> lasting{};
  // The same for every process and user of the machine as long as its clock runs on: where timestamps begin. Peers don't
  // know it; a user of the machine may.
  std::array<std::uint64_t, 4> host{};
  PortCounters* port_counters = nullptr;  // of all that have `lasting` in common; null: none. Outlives the stack
};

struct ReceiveFlags {
  bool peek = false;      // MSG_PEEK: leave the data
  bool discard = false;   // MSG_TRUNC: count, do not copy
};

// What TCP_INFO, mtcp-stat and tests want to know.
struct ConnectionInfo {
  FlowKey key;
  State state = State::closed;
  std::uint32_t rx_queued = 0, tx_queued = 0;  // bytes: unread; unacknowledged and unsent
  std::uint32_t tx_unsent = 0;                 // bytes
  std::uint32_t cwnd = 0, ssthresh = 0;        // bytes
  std::uint32_t snd_wnd = 0, rcv_wnd = 0;      // bytes
  std::uint32_t mss = 0, rcv_mss = 0, peer_mss = 0, path_mtu = 0;
  std::uint32_t advertised_mss = 0;            // ours, options taken off
  std::uint32_t rcv_space = 0;                 // bytes that the application has read in a round trip
  std::uint32_t out_of_order_received = 0;     // segments
  Duration srtt{}, rttvar{}, rto{};
  Duration rcv_rtt{}, delayed_ack{};  // as the receiver measures it; how long an ACK waits
  std::uint32_t retransmits = 0, flight = 0;
  std::uint8_t backoff = 0, retries = 0, probes = 0;
  std::uint8_t snd_wscale = 0, rcv_wscale = 0;
  bool timestamps = false, wscale = false, sack = false, ecn = false, ecn_seen = false;
  bool syn_data_acked = false;  // RFC 7413: the SYN's data was taken
  FastOpenFailure fast_open_failure = FastOpenFailure::none;
  const char* congestion_control = nullptr;  // null: not chosen yet
  Phase phase = Phase::open;
  std::uint32_t sacked = 0, lost = 0, resent = 0;  // bytes of what is in flight; lost ones that were sent again are in both
  std::uint32_t duplicate_threshold = 3;           // packets
  Duration min_rtt = Duration::max();              // max(): no sample
  std::uint64_t pacing_rate = UINT64_MAX, delivery_rate = 0;  // bytes a second; UINT64_MAX: not limited, 0: not measured
  std::uint64_t max_pacing_rate = UINT64_MAX;      // as the application wants it
  bool delivery_app_limited = false;               // delivery_rate says less of the path than of the application
  bool app_limited = false;                        // nothing waits to be sent, and the congestion window has room
  // DCTCP's: whether ECN is in use, the peer's last data was marked; of 1024; bytes of this round trip.
  bool dctcp_enabled = false, dctcp_marked = false;
  std::uint32_t dctcp_alpha = 0, dctcp_acked_marked = 0, dctcp_acked = 0;
  // BBR's model.
  std::uint64_t model_rate = 0;  // bytes a second
  Duration model_min_rtt{};
  float model_pacing_gain = 0, model_cwnd_gain = 0;
  std::uint64_t bytes_received = 0, bytes_acked = 0, bytes_sent = 0, bytes_resent = 0;  // sent: as often as it was
  std::uint32_t segments_received = 0, data_segments_received = 0, segments_sent = 0, data_segments_sent = 0;
  std::uint32_t marked_received = 0, marked_delivered = 0;  // segments with CE, and of ours such that were told of by ECE
  std::uint32_t duplicates_reported = 0, reorderings = 0;   // D-SACK blocks; times that something came late
  std::uint32_t timeouts = 0, timeout_episodes = 0;
  // What sending has waited for, and times between a first timeout and progress (Connection::Waits, ConnectionExtras).
  struct Wait {
    Duration sum{};
    bool lasts = false;  // the time when it began is taken off
    [[nodiscard]] Duration until(Time now) const { return std::max(lasts ? sum + now.time_since_epoch() : sum, Duration::zero()); }
  };
  Wait busy, for_window, for_buffer, in_timeouts;
  Time last_sent{}, last_received{}, last_data_received{}, created{};
};

// Bytes of packet buffers, as MemoryBudget sees them (tcp/memory.hh).
struct MemoryInfo {
  std::uint64_t used = 0, low = 0, pressure = 0, high = 0;
  std::uint64_t out_of_order = 0;  // of `used`
  const char* level = "";          // "low", "pressure" or "high"
  std::uint64_t times_pressed = 0;
  std::uint32_t share = 0;         // of a connection, each direction; UINT32_MAX: no limit
  std::uint32_t orphans = 0;       // connections that the application has closed
};

// The congestion controls that there are, for SocketOptions::congestion.
[[nodiscard]] std::span<const char* const> congestion_control_names();

using Clock = Time (*)();  // for the one place where the time is wanted in the midst of a call

class Worker {
 public:
  // Without a port only the loopback wire exists. `pool` must be the port's own pool where there is a port.
  // `kernel`: whose addresses, routes and neighbours are the stack's as well, instead of those of the options; or null.
  // All references outlive the Worker.
  Worker(const Options& options, const Attachment& device, PacketPool& pool, Stats& stats, const Secrets& secrets, Time now,
         KernelNetwork* kernel = nullptr);
  ~Worker();

  // --- the loop
  // Receives and processes a burst (and the loopback wire), runs timers, sends what that produced except ACKs that a
  // reply may still carry. Returns the number of packets and timers handled: 0 means that there was nothing to do.
  std::size_t poll(Time now);
  // The same where time passes meanwhile: `clock` is read again when a burst has been received, so that nothing is processed with a time from
  // before it came, however long this thread did not run in between. A round trip that is taken too short is believed for minutes: RACK and
  // BBR go by the least one. `now` is the last time that was used, afterwards.
  std::size_t poll(Time& now, Clock clock);
  // Sends everything that waits: data, ACKs, control. Call before sleeping and when the application goes off to compute.
  void flush(Time now);
  // Something waits to be sent, or is on the loopback wire.
  [[nodiscard]] bool pending() const;
  // And polling helps: do not sleep. Not so when it waits for room on the device (Port::congested).
  [[nodiscard]] bool must_poll() const;
  // poll() need not be called before this unless a packet comes. kNever if no timer is armed.
  [[nodiscard]] Time next_deadline() const;
  // The part of it that may be much sooner than when it was last asked: the next burst of a connection that is paced.
  [[nodiscard]] Time pacing_deadline() const;
  // The next socket whose readiness may have changed since it was last returned here, or null. Read and clear `edges`.
  SocketBase* next_event();
  [[nodiscard]] std::size_t connections() const;  // that hold a slot, closed by the application or not
  [[nodiscard]] std::size_t time_waits() const;
  [[nodiscard]] MemoryInfo memory() const;

  // --- listening
  struct ListenOptions {
    std::uint32_t backlog = 128;
    SocketOptions socket;
    bool v6_only = false;       // a listener on :: that does not take IPv4
    bool reuse_port = false;
    Duration defer_accept{};    // TCP_DEFER_ACCEPT; 0: off
    std::uint32_t fast_open_limit = 0;  // TCP_FASTOPEN: connections whose handshake is not over; 0: off
    FastOpenKeys fast_open_keys;        // TCP_FASTOPEN_KEY
  };
  // address_in_use if another listener has the endpoint. `local.address` may be any. The Listener stays until close().
  Result<Listener*> listen(const Endpoint& local, const ListenOptions& options);
  // An established connection, or null. The caller sets its `user` and owns it until close().
  Connection* accept(Listener& l);
  // Stops listening; connections that were not accepted are reset.
  void close(Listener& l, Time now);
  // The same for a listener that another process goes on with. Where stacks share a device, its connections go to a
  // stack that has it, and until there is one it goes on taking them, for 5 s or as long as it is held. Else they are reset, and from
  // now on a SYN is not refused but left unanswered, so that its sender tries again and meets the other process.
  void leave(Listener& l, Time now);
  // The process is at its end, and the last that has the device: what this stack does not know is not refused, because
  // another program may serve it as soon as this one is gone.
  void part();
  // Whether a process that has no stack has the listener of an endpoint, so that another stack will have it some time:
  // asked rarely. Without it: none has.
  void set_still_held(std::function<bool(const Endpoint&)> held);
  // Whether a process listens at an endpoint that is about to have a stack here. A SYN for it is left unanswered, so that it comes again; for
  // three seconds at most. Asked a thousand times a second at most. Without it: none does.
  void set_expected(std::function<bool(const Endpoint&)> expected);
  // Whether somebody waits for connections of `l` (at first: yes). If not, and another process does for the same
  // endpoint, they go there.
  void set_watched(Listener& l, bool watched);
  [[nodiscard]] Readiness readiness(const Listener& l) const;

  // What the kernel has changed of its addresses and routes is known afterwards, as it is after the next run: whoever has an
  // address of it may use that at once.
  void follow_kernel(Time now);

  // Other rules in place of the options' filter; how much of their rates has been used is forgotten.
  void set_filter(std::span<const FilterRule> rules);

  // --- connecting
  // Starts an active open; `local` may be any address and port 0. The connection is in SYN-SENT when this returns;
  // its fate is an event (writable, or error with take_error()). address_in_use, address_unavailable,
  // network_unreachable, no_buffers at once.
  Result<Connection*> connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& options, Time now);
  // The same with Fast Open (RFC 7413): the SYN takes along what it may.
  Result<Connection*> connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& options, Time now,
                              FastOpenStart& start);
  // Whether data would go with the SYN: there is a cookie, or none is needed.
  [[nodiscard]] bool is_fast_open_ready(const Endpoint& local, const Endpoint& remote, const SocketOptions& options, Time now);

  // --- streams
  // Copies up to the free space of the send buffer; returns bytes taken. would_block if none; broken_pipe after
  // shutdown or close by the peer's reset; not_connected. `more`: MSG_MORE.
  Result<std::size_t> send(Connection& c, std::span<const iovec> data, bool more, Time now);
  // The same, and the last byte is urgent (MSG_OOB).
  Result<std::size_t> send_urgent(Connection& c, std::span<const iovec> data, bool more, Time now);
  // MSG_EOR: what is written from now on shares no segment with what has been written.
  void end_record(Connection& c);
  // The same without a copy: lends up to `out.size()` pieces of buffer for at most `bytes` bytes in all; fill them
  // from the front and commit how many bytes are there (the rest is given back). No other call on `c` in between.
  Result<std::size_t> reserve(Connection& c, std::size_t bytes, std::span<iovec> out, Time now);  // returns pieces
  void commit(Connection& c, std::size_t bytes, bool more, Time now);
  // And without one even into packets: they refer to `memory` from `offset` on, until they are acknowledged. Where takes_external()
  // says that there is a device for it. As send().
  [[nodiscard]] bool takes_external(const Connection& c) const;
  Result<std::size_t> send_external(Connection& c, ExternalMemory& memory, std::uint32_t offset, std::size_t bytes, bool more, Time now);
  // Copies what is queued; returns bytes. 0 is the end of the stream. would_block if none; the pending error if any. Stops
  // before the peer's urgent byte; a read that begins there leaves that byte out, unless SO_OOBINLINE is on.
  Result<std::size_t> receive(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now);
  // The peer's urgent byte, apart from the others: 1, or 0 if the stream ends before it. `invalid`: there is none, it has been
  // read, or SO_OOBINLINE is on; would_block: it is known where it is, and it is not here yet.
  Result<std::size_t> receive_urgent(Connection& c, std::byte* byte, bool peek);
  // The next byte to read is the urgent one, or follows it (SIOCATMARK).
  [[nodiscard]] bool at_mark(const Connection& c) const;
  void shutdown(Connection& c, bool read, bool write, Time now);
  // The application lets go: `c` is not to be used after this. Sends FIN, or RST if there is unread data or
  // SO_LINGER with time 0; the rest happens by itself.
  void close(Connection& c, Time now);
  // RST and gone.
  void abort(Connection& c, Time now);
  // The process ends: what nobody here has accepted goes to the other stacks of the device that have the listener, and nothing
  // comes from them any more. How many connections found no room there and still wait for it; abort_orphans() resets them.
  [[nodiscard]] std::size_t migrate_all(Time now);
  // RST for every connection that was closed and whose peer has not got everything: nobody will go on sending.
  void abort_orphans(Time now);
  // `c`, whose peer has everything that was written, goes to a stack of the same program that expects it, by its slot on the device: its
  // description and what has come and was not read. Gone if true, with no segment to the peer; else nothing has happened.
  [[nodiscard]] bool pass(Connection& c, std::uint32_t slot, Time now);
  // The other side of that: `key` is to come from another stack. What comes and is not expected is reset.
  void expect(const FlowKey& key);
  // It is to come still, or is there and has not been taken. No longer if there was no memory for it: then it was reset.
  [[nodiscard]] bool expects(const FlowKey& key) const;
  // It has come, if it is not null, and is expected no longer. The caller sets its `user` and options, and owns it until close().
  [[nodiscard]] Connection* take_expected(const FlowKey& key);
  // Nobody takes it any more.
  void stop_expecting(const FlowKey& key, Time now);
  [[nodiscard]] Readiness readiness(const Connection& c) const;
  // Everything sent has been acknowledged (SO_LINGER waits for this), FIN included if there was one.
  [[nodiscard]] bool drained(const Connection& c) const;
  // SO_ERROR: returns and clears.
  Errc take_error(Connection& c);
  // Takes over changed options: pushes what cork or nodelay set free, arms keep-alive, resizes buffers.
  void set_options(Connection& c, const SocketOptions& options, Time now);
  [[nodiscard]] ConnectionInfo info(const Connection& c) const;
  // From now on info() has a rate of delivery for each ACK. Costs some memory, and a little time for each packet.
  void measure_delivery(Connection& c);
  // Times of what is written from now on (stack/tcp/sender/stamps.hh): StampKind bits, 0 for none. An event tells that there is a report.
  // `with_frames`: reports have what was sent. False: no memory.
  bool want_stamps(Connection& c, std::uint8_t kinds, bool with_frames);
  [[nodiscard]] bool has_stamps(const Connection& c) const;
  bool take_stamp(Connection& c, StampReport& report);  // the oldest; false: there is none
  // When the last of the next `bytes` came that receive() would return; zero: there are none.
  [[nodiscard]] Time arrival_of(const Connection& c, std::size_t bytes) const;
  // Bytes that receive() would return now, and free bytes of the send buffer.
  [[nodiscard]] std::size_t readable_bytes(const Connection& c) const;
  [[nodiscard]] std::size_t writable_bytes(const Connection& c) const;

  // Calls `visit(const ConnectionInfo&)`-like function for each connection, listener excluded. For mtcp-stat.
  void for_each(void (*visit)(void* context, const ConnectionInfo& info), void* context) const;

  // Who gets copies of all packets; null: nobody. Outlives the Worker, or is taken away again.
  void set_captures(CaptureSet* captures);

  [[nodiscard]] Network& network();

 private:
  std::unique_ptr<Tcp> tcp_;
};

}  // namespace mtcp::stack
