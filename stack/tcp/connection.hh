// One connection: RFC 9293's transmission control block. What every segment touches is in one cache line
// (Hot), the rest is grouped by direction. Plain data: the functions that work on it are in sender/, receiver/,
// and in input, close, ... beside this file.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "stack/base/errc.hh"
#include "stack/base/seq.hh"
#include "stack/base/time.hh"
#include "stack/ip/network.hh"
#include "stack/packet/packet.hh"
#include "stack/socket_base.hh"
#include "stack/tcp/extras.hh"
#include "stack/tcp/fast_open.hh"
#include "stack/tcp/receiver/islands.hh"
#include "stack/tcp/receiver/sack.hh"
#include "stack/tcp/state.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class Listener;
class CongestionControl;
class Scoreboard;
struct Pacing;

// A time that is set: milliseconds, at most seven weeks.
using ShortDuration = std::chrono::duration<std::uint32_t, std::milli>;

// What a socket sets before there is a connection, and may change while there is one. Inherited from the
// listener.
struct SocketOptions {
  std::uint8_t tos = 0;                      // IP_TOS, without the two bits that are ECN's
  std::uint8_t ttl = 0;                      // IP_TTL; 0: the usual one
  bool nodelay = false;                      // TCP_NODELAY
  std::uint8_t congestion = 0;               // TCP_CONGESTION: 1 + its index in congestion_control_names(); 0: from the configuration
  bool cork = false;                         // TCP_CORK
  bool quickack = false;                     // TCP_QUICKACK: ACK at once, for a while
  bool keepalive = false;                    // SO_KEEPALIVE
  bool linger = false;                       // SO_LINGER on
  bool reuse_address = false;                // SO_REUSEADDR
  bool oob_inline = false;                   // SO_OOBINLINE: an urgent byte is data like any other
  bool fast_open_no_cookie = false;          // TCP_FASTOPEN_NO_COOKIE
  std::uint8_t keepalive_probes = 0;         // TCP_KEEPCNT; 0: from the configuration
  std::uint8_t syn_retries = 0;              // TCP_SYNCNT; 0: likewise
  std::uint16_t max_segment = 0;             // TCP_MAXSEG; 0: from the path
  std::uint32_t rcvbuf = 0;                  // SO_RCVBUF in bytes (already doubled); 0: tcp_rmem, auto-tuned
  std::uint32_t sndbuf = 0;                  // SO_SNDBUF likewise
  std::uint32_t window_clamp = 0;            // TCP_WINDOW_CLAMP; 0: none
  std::uint32_t rcvlowat = 1;                // SO_RCVLOWAT, bytes
  std::uint32_t notsent_lowat = 0;           // TCP_NOTSENT_LOWAT, bytes; 0: none
  ShortDuration keepalive_time{};            // TCP_KEEPIDLE; 0: from the configuration
  ShortDuration keepalive_intvl{};           // TCP_KEEPINTVL; 0: likewise
  ShortDuration user_timeout{};              // TCP_USER_TIMEOUT; 0: none
  Duration linger_time{};                    // SO_LINGER
  Duration fin_timeout{};                    // TCP_LINGER2; 0: from the configuration
  std::uint64_t max_pacing_rate = UINT64_MAX;  // SO_MAX_PACING_RATE, bytes a second
};

enum class TimerKind : std::uint8_t {
  retransmit,  // RTO, zero-window probe, SYN: whatever must be sent again
  delayed_ack,
  life,  // keep-alive while open; FIN-WAIT-2 once closed
};

// What the sender is about (RFC 5681, RFC 6675; Linux's tcp_ca_state).
enum class Phase : std::uint8_t {
  open,      // nothing unusual
  disorder,  // duplicate ACKs or SACK blocks, and nothing taken for lost yet
  cwr,       // the window is being reduced without a loss
  recovery,  // fast recovery: it is reduced, and what is lost goes again
  loss,      // after a timeout
};

// What the retransmission timer will do.
enum class TimerUse : std::uint8_t {
  timeout,     // RFC 6298
  tail_probe,  // RFC 8985 section 7
  reordering,  // RFC 8985 section 6.2 step 5: what has not come by then is lost
  window,      // zero-window probe, end of a cork
};

// cwnd, in bytes. Everybody reads it; only congestion control writes it.
class CongestionWindow {
 public:
  operator std::uint32_t() const { return bytes_; }  // NOLINT: it is read as a number

 private:
  friend class CongestionControl;
  std::uint32_t bytes_ = 0;
};

struct Connection : SocketBase {
  Connection() : SocketBase(Kind::connection) {}

  // What sending has waited for, as Linux's tcp_info has it: in all, with the time of its beginning taken off while it lasts.
  struct Waits {
    enum class For : std::uint8_t { none, window, buffer };
    Duration busy{};       // there was data that was not acknowledged: lasts while tx.queue has something
    Duration for_window{};  // of that: the peer's window had no room
    Duration for_buffer{};  // of that: all was sent, and the application waited for room in the send buffer
    For now_for = For::none;
  } waits;

  // Everything that a segment of an established connection touches.
  struct alignas(64) Hot {
    State state = State::closed;
    std::uint8_t snd_wscale = 0;  // shift of the windows that the peer announces
    std::uint8_t rcv_wscale = 0;  // shift of ours
    Phase phase = Phase::open;    // of the sender
    std::uint16_t mss = 536;      // payload of the segments we send, options already taken off
    bool timestamps : 1 = false;  // RFC 7323 in use
    bool wscale : 1 = false;
    bool sack_ok : 1 = false;       // RFC 2018 in use
    bool ack_now : 1 = false;       // an ACK must leave with the next flush
    bool ack_queued : 1 = false;    // linked in the worker's list of those
    bool fin_queued : 1 = false;    // the application has closed its side; FIN goes out after the data
    bool fin_sent : 1 = false;      // FIN has been sent; it occupies snd_nxt - 1
    bool fin_received : 1 = false;  // the peer's FIN is in order
    bool more : 1 = false;          // MSG_MORE in the last write
    bool retransmitting_syn : 1 = false;
    bool cwnd_limited : 1 = false;  // in this round trip push() has stopped for lack of congestion window
    bool wake_writer : 1 = false;   // a write found too little room: tell when there is enough
    bool pingpong : 1 = false;      // the application answers what it receives: no quick ACKs
    bool tx_blocked : 1 = false;    // linked in the worker's list of those that found the transmit queue full
    bool ecn : 1 = false;           // RFC 3168 in use
    Seq snd_una, snd_nxt;           // RFC 9293 section 3.3.1
    Seq snd_wl1, snd_wl2;
    std::uint32_t snd_wnd = 0;  // bytes, scaled
    Seq rcv_nxt;
    Seq rcv_adv;                  // right edge that has been announced: never moves left
    CongestionWindow cwnd;
    std::uint32_t ts_recent = 0;  // RFC 7323
    Seq last_ack_sent;
    std::uint32_t last_received = 0;  // ts_clock() of the last segment
    // Bytes of [snd_una, snd_nxt) that are sacked or lost, less those that were sent again.
    std::int32_t left_network = 0;
    std::uint32_t snd_queued = 0;  // bytes in tx.queue, sent or not
    // Bytes in the network: RFC 5681's FlightSize less what is known to have left (RFC 6675's pipe).
    [[nodiscard]] std::uint32_t flight() const {
      return snd_nxt - snd_una - static_cast<std::uint32_t>(left_network);
    }
  } hot;

  struct Rx {
    PacketList queue;                  // in order, not read yet; data/len of each is what is left
    IslandSet out_of_order;            // islands.hh
    std::uint32_t queued = 0;          // bytes in queue
    std::uint32_t ooo_bytes = 0;       // bytes in out_of_order
    std::uint32_t memory = 0;          // buffer bytes that both hold (truesize), what the limit is about
    std::uint32_t out_of_order_memory = 0;  // of which out_of_order (Tcp::account_out_of_order)
    std::uint32_t buffer = 0;          // limit: SO_RCVBUF or the auto-tuned value
    std::uint32_t mss_estimate = 536;  // of what the peer sends
    std::uint32_t ts_recent_age = 0;   // seconds of ts_clock(); when ts_recent was set
    std::uint32_t out_of_order_received = 0;  // segments
    std::uint32_t drs_copied = 0;      // dynamic right-sizing: bytes the application read in this round
    std::uint32_t drs_space = 0;       //   and in the best round so far
    Time drs_start{};                  //   start of this round
    Duration rtt{};                    // the receiver's own estimate; zero: none yet
    Time rtt_start{};                  //   without timestamps: when ...
    Seq rtt_seq;                       //   ... the window up to here was offered
    Time last_oow_ack{};               // last ACK in answer to an unacceptable segment without data
    Seq fin_seq;                       // where the peer's FIN is, with fin_pending
    bool fin_pending = false;          // it came before what precedes it
    std::uint8_t quickack_left = 0;    // ACKs that are not to be delayed
    std::uint16_t ato = 0;             // ms that the others are delayed, before bounds; 0: no data yet
    std::uint32_t last_data = 0;       // ts_clock() of the last data in order
    std::uint8_t pushed = 0;           // short segments since the last ACK, two at most
    std::uint8_t duplicate_acks = 0;   // sent, of those that acknowledge ...
    std::uint16_t lossy = 0;           // ACKs for which the path counts as one that loses: none is left out for a turn's sake
    Seq duplicate_acks_at;             // ... this
    SackState sack;                    // what our ACKs say beside RCV.NXT
  } rx;

  struct Tx {
    PacketList queue;             // from snd_una on: retransmission queue, then what has not been sent
    Packet* unsent = nullptr;     // first packet of the queue that has not been sent, null if all have
    Scoreboard* scoreboard = nullptr;  // the marks of what is in flight, null if there are none
    PacketList lent;              // reserve(): packets that the application fills
    std::uint32_t memory = 0;     // buffer bytes of the packets in the queue
    std::uint32_t buffer = 0;     // limit in bytes: SO_SNDBUF or the auto-tuned value
    std::uint32_t ssthresh = UINT32_MAX;  // written by congestion control
    std::uint32_t max_window = 0;         // largest window the peer has offered, for SWS avoidance
    std::uint32_t max_flight = 0;         // largest of this round trip
    Seq round_end;                        // of it
    Seq pushed;                            // end of the last packet that PSH was asked for
    Seq small_end;                 // end of the last segment sent that was not full (Minshall's Nagle)
    Duration srtt{}, rttvar{}, rto{};  // RFC 6298; srtt zero: no sample yet
    Duration deviation{}, max_deviation{};  // rto.hh
    Seq rtt_round_end;                      //
    std::uint8_t backoff = 0;      // RTO doublings, also of zero-window probes
    std::uint8_t probes = 0;       // keep-alives or zero-window probes without an answer
    std::uint8_t retries = 0;      // timeouts since the last progress
    TimerUse timer_use = TimerUse::timeout;
    std::uint16_t lent_in_last = 0;    // reserve(): bytes of the last packet's tail
    Time last_sent{};                  // for the restart after idle
    Time first_unanswered{};           // for the user timeout and tcp_retries2
    const CongestionControl* cc = nullptr;
  } tx;

  std::uint64_t bytes_received = 0, bytes_acked = 0;
  Seq iss, irs;
  Time created{};
  std::uint32_t path_mtu = 0;     // lower than path->mtu after "fragmentation needed"; 0: path->mtu
  std::uint32_t retransmits = 0;  // in all

  // Who it is: what demultiplexing and every segment sent need, in a cache line.
  const Path* path = nullptr;
  alignas(64) FlowKey key;
  std::uint32_t hash = 0;        // in the flow table
  std::uint32_t index = 0;       // in the slab
  std::uint32_t ts_offset = 0;   // RFC 7323 section 5.4: ours = clock + offset
  std::uint16_t peer_mss = 536;  // as announced
  Errc error = Errc::ok;         // SO_ERROR, until it is taken
  Errc soft_error = Errc::ok;    // what ICMP said, reported if the connection times out
  bool read_shut : 1 = false;    // shutdown(SHUT_RD)
  bool detached : 1 = false;     // the application has let go: ours to finish
  bool was_passive : 1 = false;
  bool in_table : 1 = false;
  bool holds_port : 1 = false;   // an active open: the local port counts as used
  bool published : 1 = false;    // the directory says that this stack has it (Steering::publish)
  bool urgent : 1 = false;       // there has been urgent data, in either direction: urgent.hh
  bool stamped : 1 = false;      // times of what is sent are wanted: sender/stamps.hh
  bool fast_open : 1 = false;    // our SYN had a Fast Open option, or data, or answered such a one (RFC 7413)
  bool syn_data_acked : 1 = false;  // and its data was taken
  bool experimental_fast_open : 1 = false;  // that option was RFC 6994's
  FastOpenFailure fast_open_failure : 2 = FastOpenFailure::none;
  std::uint8_t memory_class = 0;  // in which list memory_hook is
  Listener* listener = nullptr;  // while it waits there to be accepted
  Pacing* pacing = nullptr;      // sender/pacing.hh; null: it is neither paced nor measured

  TimerNode retransmit_timer{static_cast<std::uint8_t>(TimerKind::retransmit)};
  TimerNode delayed_ack_timer{static_cast<std::uint8_t>(TimerKind::delayed_ack)};
  TimerNode life_timer{static_cast<std::uint8_t>(TimerKind::life)};
  ListHook ack_hook;     // in the worker's list of connections with ack_now
  ListHook push_hook;    // in the worker's list of connections with tx_blocked
  ListHook accept_hook;  // in a listener's accept queue; in SYN-SENT in the list of those

  std::uint32_t segments_received = 0, data_segments_received = 0, segments_sent = 0, data_segments_sent = 0;
  // The rest is looked at now and then.
  SocketOptions options;
  std::unique_ptr<ConnectionExtras> extras;  // null: nothing of it has been needed
  ListHook memory_hook;  // among those that pay when packets are scarce (memory.hh)

  // The sender's rest: what it looks at when something is lost or out of order.
  struct Recovery {
    Seq end;             // RFC 6582's `recover`: over when this is acknowledged
    Seq former_end;      // of the last episode of recovery or loss
    Seq highest_sacked;  // end of the highest packet that is sacked
    Seq undo_from;       // what was sent again since the window was reduced begins here
    std::int32_t undo_resent = 0;         // of those: not known to have been needless; -1: can't be told
    std::uint32_t first_resent_at = 0;    // our timestamp at the first of them
    std::uint32_t reno_sacked = 0;        // without SACK: bytes that duplicate ACKs stand for
    Seq rack_end;                         // RFC 8985: of the packet sent last among those that have arrived
    Seq rack_round;
    Time rack_sent{};
    Duration rack_rtt{};
    Seq probe_end;                        // RFC 8985 section 7: the tail probe's end
    Duration min_rtt = Duration::max(), former_min_rtt = Duration::max();  // of two successive spans
    Time min_rtt_since{};
    std::uint16_t duplicate_threshold = 3;  // packets; more once the path has reordered more
    std::uint8_t dupacks = 0;               // without SACK: consecutive ones
    std::uint8_t reo_steps = 1;             // RFC 8985: quarters of the least RTT that a packet may be late
    std::uint8_t reo_persist = 0;           // recoveries for which that stays
    bool undo_possible : 1 = false;
    bool frto : 1 = false;            // RFC 5682: whether the timeout was right is not known yet
    bool probe_pending : 1 = false;   // a tail probe is not answered yet
    bool probe_resent : 1 = false;    // and it repeated something
    bool send_new_first : 1 = false;  // before what is lost: that is its question
    bool reneging : 1 = false;        // the receiver seems to have dropped what it had sacked
    bool reordering_seen : 1 = false;
    bool dsack_seen : 1 = false;
    bool fin_lost : 1 = false;
    bool ecn_echo : 1 = false;        // RFC 3168: our ACKs carry ECE ...
    bool ecn_seen : 1 = false;        // the peer's packets are ECN-capable, as it has promised
    bool cwr_due : 1 = false;         // the window was reduced: the next new data says so
    bool ecn_echoed : 1 = false;      // the segment being processed carries ECE
  } recovery;
  // What congestion control keeps; zero at the start.
  static constexpr std::size_t kCongestionState = 64;
  alignas(8) std::array<std::byte, kCongestionState> congestion{};
};
static_assert(sizeof(Connection::Hot) == 64, "the hot part is one cache line");
static_assert(sizeof(Connection) <= 1024, "an idle connection stays small");

}  // namespace mtcp::stack
