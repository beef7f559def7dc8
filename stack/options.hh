// Everything a stack can be told. Plain values with the defaults; conf fills them in from the file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stack/base/time.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack {

struct BufferSizes {  // bytes, as net.ipv4.tcp_rmem and tcp_wmem
  std::uint32_t min = 4096;
  std::uint32_t initial = 131072;
  std::uint32_t max = 6291456;
};

// Bytes of packet buffers that a stack has in use, as net.ipv4.tcp_mem (which counts pages). 0: by the number of packets.
struct MemoryLevels {
  std::uint64_t low = 0, pressure = 0, high = 0;
};

struct TcpTuning {  // names and meaning of net.ipv4.tcp_*
  BufferSizes rmem{4096, 131072, 33554432};
  BufferSizes wmem{4096, 16384, 4194304};
  MemoryLevels mem;
  std::string congestion_control = "cubic";
  bool slow_start_after_idle = true;
  bool timestamps = true;
  bool window_scaling = true;
  bool sack = true;                              // RFC 2018
  bool dsack = true;                             // RFC 2883
  std::uint32_t ecn = 2;                         // RFC 3168; 0: never, 1: asked for and accepted, 2: accepted
  bool ecn_fallback = true;                      // a SYN that asks for ECN and is lost is sent again without
  std::uint32_t fast_open = 1;                   // RFC 7413; bits as net.ipv4.tcp_fastopen: see fast_open.hh
  bool syncookies = true;
  bool tw_reuse = true;                          // a local port in TIME_WAIT may be used again for a connect ...
  Duration tw_reuse_delay = milliseconds(2);     // ... this long after it was entered (needs timestamps; RFC 6191)
  bool rfc1337 = false;                          // a RST does not end TIME-WAIT
  bool abort_on_overflow = false;                // accept queue full: RST instead of silence
  std::uint32_t max_syn_backlog = 4096;
  std::uint32_t max_tw_buckets = 262144;
  std::uint32_t max_connections = 1048576;       // per stack
  std::uint32_t syn_retries = 6;
  std::uint32_t syn_linear_timeouts = 4;         // so many SYNs more, a second apart, before the interval grows
  std::uint32_t synack_retries = 5;
  std::uint32_t retries2 = 15;
  std::uint32_t orphan_retries = 8;
  Duration fin_timeout = seconds(60);
  Duration keepalive_time = seconds(7200);
  Duration keepalive_intvl = seconds(75);
  std::uint32_t keepalive_probes = 9;
  Duration rto_min = milliseconds(200);
  Duration rto_max = seconds(120);
  Duration delayed_ack = milliseconds(200);       // at most
  std::uint16_t ip_local_port_first = 32768;     // net.ipv4.ip_local_port_range
  std::uint16_t ip_local_port_last = 60999;
  std::uint32_t initial_window = 10;             // segments (RFC 6928)
  bool no_metrics_save = false;                  // what a connection has learned of a host is not kept for the next
  bool no_ssthresh_metrics_save = true;          // of that: ssthresh
  std::uint32_t challenge_ack_limit = INT32_MAX;  // per second (RFC 5961 section 7); this or more: none
  Duration invalid_ratelimit = milliseconds(500);  // between ACKs of one connection in answer to what is not acceptable
};

struct InterfaceOptions {
  struct Address {
    IpAddress address;
    std::uint8_t prefix_length = 0;  // of the 128 bits
  };
  std::vector<Address> addresses;
  std::vector<IpAddress> gateways;
  bool from_kernel = false;  // addresses and routes are those of the interface that the device is on (stack/kernel_net)
  std::uint32_t mtu = 1500;
};

// Who may open connections to which local ports: the first rule that matches decides, and without one they are accepted.
struct FilterRule {
  enum class Action : std::uint8_t { accept, drop, reset };
  Prefix source;  // network of the peer; length 0: any
  std::uint16_t port_first = 0, port_last = 65535;
  Action action = Action::accept;
  std::uint32_t rate = 0;  // accept: new connections a second of each source; 0: no limit
  friend bool operator==(const FilterRule&, const FilterRule&) = default;
};

struct Options {
  InterfaceOptions interface;
  TcpTuning tcp;
  std::vector<FilterRule> filter;
  bool loopback = false;  // 127.0.0.0/8 and ::1 are the stack's own too
};

}  // namespace mtcp::stack
