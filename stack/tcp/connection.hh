// One connection: RFC 9293's transmission control block. What every segment touches is in one cache line
// (Hot), the rest is grouped by direction. Plain data: the functions that work on it are in sender/, receiver/,
// and in input, close, ... beside this file.
#pragma once

#include <cstdint>

#include "stack/base/errc.hh"
#include "stack/base/seq.hh"
#include "stack/base/time.hh"
#include "stack/ip/network.hh"
#include "stack/packet/packet.hh"
#include "stack/socket_base.hh"
#include "stack/tcp/receiver/islands.hh"
#include "stack/tcp/receiver/sack.hh"
#include "stack/tcp/state.hh"
#include "stack/timer/wheel.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

class Listener;
class CongestionControl;

// What a socket sets before there is a connection, and may change while there is one. Inherited from the
// listener.
struct SocketOptions {
  std::uint8_t tos = 0;                      // IP_TOS
  std::uint8_t ttl = 0;                      // IP_TTL; 0: the usual one
  bool nodelay = false;                      // TCP_NODELAY
  bool cork = false;                         // TCP_CORK
  bool quickack = false;                     // TCP_QUICKACK: ACK at once, for a while
  bool keepalive = false;                    // SO_KEEPALIVE
  bool linger = false;                       // SO_LINGER on
  bool reuse_address = false;                // SO_REUSEADDR
  std::uint16_t max_segment = 0;             // TCP_MAXSEG; 0: from the path
  std::uint32_t rcvbuf = 0;                  // SO_RCVBUF in bytes (already doubled); 0: tcp_rmem, auto-tuned
  std::uint32_t sndbuf = 0;                  // SO_SNDBUF likewise
  std::uint32_t window_clamp = 0;            // TCP_WINDOW_CLAMP; 0: none
  std::uint32_t rcvlowat = 1;                // SO_RCVLOWAT, bytes
  std::uint32_t notsent_lowat = 0;           // TCP_NOTSENT_LOWAT, bytes; 0: none
  Duration linger_time{};                    // SO_LINGER
  Duration keepalive_time{};   // TCP_KEEPIDLE; 0: from the configuration, and so for those that follow
  Duration keepalive_intvl{};  // TCP_KEEPINTVL
  std::uint32_t keepalive_probes = 0;  // TCP_KEEPCNT
  Duration user_timeout{};             // TCP_USER_TIMEOUT; 0: none
  Duration fin_timeout{};              // TCP_LINGER2
  std::uint32_t syn_retries = 0;       // TCP_SYNCNT
};

enum class TimerKind : std::uint8_t {
  retransmit,  // RTO, zero-window probe, SYN: whatever must be sent again
  delayed_ack,
  life,  // keep-alive while open; FIN-WAIT-2 once closed
};

struct Connection : SocketBase {
  Connection() : SocketBase(Kind::connection) {}

  // Everything that a segment of an established connection touches.
  struct alignas(64) Hot {
    State state = State::closed;
    std::uint8_t snd_wscale = 0;  // shift of the windows that the peer announces
    std::uint8_t rcv_wscale = 0;  // shift of ours
    std::uint8_t dupacks = 0;     // consecutive duplicate ACKs
    std::uint16_t mss = 536;      // payload of the segments we send, options already taken off
    bool timestamps : 1 = false;  // RFC 7323 in use
    bool wscale : 1 = false;
    bool sack_ok : 1 = false;       // RFC 2018 in use
    bool in_recovery : 1 = false;   // RFC 6582 fast recovery
    bool after_rto : 1 = false;     // retransmitting up to `recover` after a timeout
    bool ack_now : 1 = false;       // an ACK must leave with the next flush
    bool ack_queued : 1 = false;    // linked in the worker's list of those
    bool fin_queued : 1 = false;    // the application has closed its side; FIN goes out after the data
    bool fin_sent : 1 = false;      // FIN has been sent; it occupies snd_nxt - 1
    bool fin_received : 1 = false;  // the peer's FIN is in order
    bool more : 1 = false;          // MSG_MORE in the last write
    bool retransmitting_syn : 1 = false;
    bool cwnd_limited : 1 = false;  // the last push() stopped for lack of congestion window
    bool wake_writer : 1 = false;   // a write found too little room: tell when there is enough
    bool pingpong : 1 = false;      // the application answers what it receives: no quick ACKs
    bool tx_blocked : 1 = false;    // linked in the worker's list of those that found the transmit queue full
    Seq snd_una, snd_nxt;           // RFC 9293 section 3.3.1
    Seq snd_wl1, snd_wl2;
    std::uint32_t snd_wnd = 0;  // bytes, scaled
    Seq rcv_nxt;
    Seq rcv_adv;                  // right edge that has been announced: never moves left
    std::uint32_t cwnd = 0;       // bytes
    std::uint32_t ts_recent = 0;  // RFC 7323
    Seq last_ack_sent;
    std::uint32_t last_received = 0;  // ts_clock() of the last segment
    std::uint32_t left_network =
        0;  // bytes of [snd_una, snd_nxt) that are lost or that duplicate ACKs stand for
    std::uint32_t snd_queued = 0;  // bytes in tx.queue, sent or not
    // Bytes in the network: RFC 5681's FlightSize less what is known to have left (RFC 6675's pipe).
    [[nodiscard]] std::uint32_t flight() const { return snd_nxt - snd_una - left_network; }
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
    Seq duplicate_acks_at;             // ... this
    SackState sack;                    // what our ACKs say beside RCV.NXT
  } rx;

  struct Tx {
    PacketList queue;          // from snd_una on: retransmission queue, then what has not been sent
    Packet* unsent = nullptr;  // first packet of the queue that has not been sent, null if all have
    Packet* lost = nullptr;    // after a timeout: first packet that has to be sent again, null if all were
    PacketList lent;           // reserve(): packets that the application fills
    std::uint32_t memory = 0;  // buffer bytes of the packets in the queue
    std::uint32_t buffer = 0;  // limit in bytes: SO_SNDBUF or the auto-tuned value
    std::uint32_t ssthresh = UINT32_MAX;
    std::uint32_t cwnd_acked = 0;      // congestion avoidance: bytes ACKed since cwnd grew
    std::uint32_t max_window = 0;      // largest window the peer has offered, for SWS avoidance
    Seq recover;                       // RFC 6582
    Seq small_end;                     // end of the last segment sent that was not full (Minshall's Nagle)
    Duration srtt{}, rttvar{}, rto{};  // RFC 6298; srtt zero: no sample yet
    std::uint8_t backoff = 0;          // RTO doublings, also of zero-window probes
    std::uint8_t probes = 0;           // keep-alives or zero-window probes without an answer
    bool probing = false;              // the retransmit timer is a zero-window probe, or the end of a cork
    std::uint8_t retries = 0;          // timeouts since the last progress
    std::uint16_t lent_in_last = 0;    // reserve(): bytes of the last packet's tail
    Time last_sent{};                  // for the restart after idle
    Time first_unanswered{};           // for the user timeout and tcp_retries2
    const CongestionControl* cc = nullptr;
  } tx;

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
  bool reserved : 1 = false;     // and no other stack of the device may open the same flow
  std::uint8_t hops = 0;         // between stacks of the device (handover.hh)
  Listener* listener = nullptr;  // while it waits there to be accepted

  TimerNode retransmit_timer{static_cast<std::uint8_t>(TimerKind::retransmit)};
  TimerNode delayed_ack_timer{static_cast<std::uint8_t>(TimerKind::delayed_ack)};
  TimerNode life_timer{static_cast<std::uint8_t>(TimerKind::life)};
  ListHook ack_hook;     // in the worker's list of connections with ack_now
  ListHook push_hook;    // in the worker's list of connections with tx_blocked
  ListHook accept_hook;  // in a listener's accept queue; in SYN-SENT in the list of those

  // The rest is looked at now and then.
  Seq iss, irs;
  std::uint32_t path_mtu = 0;     // lower than path->mtu after "fragmentation needed"; 0: path->mtu
  std::uint32_t retransmits = 0;  // in all
  Time created{};
  std::uint64_t bytes_received = 0, bytes_acked = 0;
  SocketOptions options;
  ListHook memory_hook;           // among those that pay when packets are scarce (memory.hh)
  std::uint8_t memory_class = 0;  // in which list there
};
static_assert(sizeof(Connection::Hot) == 64, "the hot part is one cache line");
static_assert(sizeof(Connection) <= 832, "an idle connection stays small");

}  // namespace mtcp::stack
