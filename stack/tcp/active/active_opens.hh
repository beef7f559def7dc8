// Active opens: ports, SYN-SENT, Fast Open's client, and what is remembered of hosts (RFC 9293 3.10.1 and 3.10.7.3,
// RFC 6056, RFC 7413; tcp_metrics as Linux).
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/siphash.hh"
#include "stack/tcp/active/destinations.hh"
#include "stack/tcp/active/ports.hh"
#include "stack/tcp/connection.hh"
#include "stack/wire/segment.hh"
#include "stack/worker.hh"

namespace mtcp::stack {

class Tcp;

class ActiveOpens {
 public:
  ActiveOpens(Tcp& tcp, const Secrets& secrets, Time now);
  ActiveOpens(const ActiveOpens&) = delete;
  ActiveOpens& operator=(const ActiveOpens&) = delete;

  // --- connect.cc
  Result<Connection*> connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& options,
                              Time now, FastOpenStart* start = nullptr);
  void on_syn_sent(Connection& c, Segment& s, Time now);
  void on_unreachable(const IpAddress& next_hop);

  // --- fast_open.cc (RFC 7413)
  [[nodiscard]] bool is_fast_open_ready(const IpAddress& local, const IpAddress& remote, const SocketOptions& o, Time now) const;

  // --- metrics.cc
  void save_metrics(const Connection& c, Time now);
  void recall_metrics(Connection& c, Time now) const;

  Ports ports;  // of listeners and TIME-WAITs as well

 private:
  Errc claim_flow(const FlowKey& key, std::uint32_t hash, std::optional<Seq>& isn, Time now);
  Errc choose_local_port(FlowKey& key, std::uint32_t& hash, bool& published, std::optional<Seq>& isn, Time now);
  [[nodiscard]] std::uint64_t destination_id(const FlowKey& key) const;  // isn.cc: of all but the local port
  void on_syn_ack(Connection& c, Segment& s, Time now);
  void on_crossed_syn(Connection& c, Segment& s, Time now);
  void send_fast_open_syn(Connection& c, FastOpenStart& start, Time now);
  void finish_fast_open(Connection& c, Segment& s, Time now);

  Tcp& tcp_;
  const Options& options_;
  Stats& stats_;
  SipKey destination_key_;
  Destinations destinations_;
  IntrusiveList<Connection, &Connection::accept_hook> opening_;  // SYN-SENT
};

}  // namespace mtcp::stack
