// What the end of a connection leaves for the next with the same host, as Linux's tcp_metrics: the round trip, how much the path
// reorders, and, where that is wanted, ssthresh. (Linux keeps the round trip's variance and cwnd as well; nothing reads them
// unless a route locks them.)
#include <algorithm>

#include "stack/tcp/private.hh"
#include "stack/tcp/sender/congestion.hh"

namespace mtcp::stack {
namespace {

constexpr Duration kBelieved = std::chrono::hours(1);  // TCP_METRICS_TIMEOUT
constexpr Duration kOften = milliseconds(1);  // who ends connections faster learns nothing more from each
constexpr std::uint16_t kUsualReordering = 3;

// A longer round trip counts at once, a shorter one for an eighth, as nobody should be taken for late too soon.
void note_rtt(HostRecord& d, Duration rtt) {
  d.rtt = d.rtt <= rtt ? rtt : d.rtt - (d.rtt - rtt) / 8;
}

void note_ssthresh(HostRecord& d, const Connection& c) {
  const std::uint32_t cwnd = c.hot.cwnd, ssthresh = c.tx.ssthresh;
  if (ssthresh == UINT32_MAX) {  // slow start had no end
    if (d.ssthresh != 0) d.ssthresh = std::max(d.ssthresh, cwnd / 2);
  } else if (cwnd >= ssthresh && c.hot.phase == Phase::open) {
    d.ssthresh = std::max(cwnd / 2, ssthresh);
  } else if (d.ssthresh != 0) {
    d.ssthresh = std::max(d.ssthresh, ssthresh);
  }
}

void note(HostRecord& d, const Connection& c, bool with_ssthresh, Time now) {
  if (now - d.metrics_at > kBelieved) {
    d.rtt = {};
    d.ssthresh = 0;
    d.reordering = 0;
  }
  d.metrics_at = now;
  note_rtt(d, c.tx.srtt);
  if (with_ssthresh) note_ssthresh(d, c);
  const std::uint16_t reordering = c.recovery.duplicate_threshold;
  if (reordering != kUsualReordering) d.reordering = std::max(d.reordering, reordering);
}

// Beyond what ends most often at the first line of save_metrics().
[[gnu::noinline]] void save(Destinations& known, const HostRecord* before, const Connection& c, const TcpTuning& t, Time now) {
  if (t.no_metrics_save || c.path->local) return;
  if (before == nullptr) before = known.find(c.key.local, c.key.remote);
  if (before != nullptr && now - before->metrics_at < kOften) return;
  // Without a measurement, or with timeouts at the end, it could not tell: what was known is doubtful, too.
  const bool doubtful = c.tx.backoff != 0 || c.tx.srtt == Duration::zero();
  if (doubtful && before == nullptr) return;
  HostRecord* d = known.note(c.key.local, c.key.remote, now);
  if (d == nullptr) return;
  if (doubtful)
    d->rtt = {};
  else
    note(*d, c, !t.no_ssthresh_metrics_save, now);
}

bool tells_nothing(const HostRecord& d, const Connection& c) { return d.ssthresh == 0 && d.reordering == 0 && d.rtt <= c.tx.srtt; }

[[gnu::noinline]] void recall(const Destinations& known, const HostRecord* d, Connection& c, const TcpTuning& t, Time now) {
  if (d == nullptr) d = known.find(c.key.local, c.key.remote);
  if (d == nullptr || tells_nothing(*d, c) || now - d->metrics_at > kBelieved) return;
  if (d->ssthresh != 0 && !t.no_ssthresh_metrics_save) CongestionControl::recall_ssthresh(c, d->ssthresh);
  if (d->reordering != 0) c.recovery.duplicate_threshold = d->reordering;
  // Data may take longer than a SYN, which some networks and hosts answer ahead of it. Until there is a sample of it.
  if (d->rtt > c.tx.srtt) c.tx.rto = std::min(d->rtt + std::max(2 * d->rtt, t.rto_min), t.rto_max);
}

}  // namespace

// It ends as it should, in TIME-WAIT or LAST-ACK.
void ActiveOpens::save_metrics(const Connection& c, Time now) {
  const HostRecord* latest = destinations_.latest(c.key.local, c.key.remote);
  if (latest != nullptr && now - latest->metrics_at < kOften) [[likely]] return;
  save(destinations_, latest, c, options_.tcp, now);
}

// It begins, and has measured its handshake.
void ActiveOpens::recall_metrics(Connection& c, Time now) const {
  const HostRecord* latest = destinations_.latest(c.key.local, c.key.remote);
  if (latest != nullptr && tells_nothing(*latest, c)) [[likely]] return;
  recall(destinations_, latest, c, options_.tcp, now);
}

}  // namespace mtcp::stack
