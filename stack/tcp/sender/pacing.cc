// Pacing: packets leave in small bursts at a rate, by a clock of nanoseconds; as Linux does it without fq.
#include "stack/tcp/sender/pacing.hh"

#include <new>
#include <utility>

#include "stack/tcp/sender/congestion.hh"
#include "stack/tcp/sender/scoreboard.hh"
#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kUnpaced = 10;  // segments

Duration time_for(std::uint64_t bytes, std::uint64_t rate) {
  if (rate == kUnlimitedRate) return {};
  return Duration(static_cast<std::int64_t>(static_cast<double>(bytes) * 1e9 / static_cast<double>(rate)));
}

}  // namespace

bool Pacing::may_send(std::uint32_t mss, Time now) {
  if (burst_left != 0 || rate == kUnlimitedRate) return true;
  if (next > now) return false;
  burst_left = burst(mss);
  // Who comes late catches up, by half a burst at most, as Linux; and by all that this process had to wait for its turn, within
  // limits: the kernel's timers need none.
  constexpr Duration kMostLate = milliseconds(5);
  const Duration half = time_for(burst_left, rate) / 2;
  next = std::max(next, now - (std::exchange(waits, false) ? std::max(half, kMostLate) : half));
  return true;
}

void Pacing::on_sent(std::uint32_t bytes) {
  burst_left -= std::min(burst_left, bytes);
  next += time_for(bytes, rate);
}

// --- PacingTimers

void PacingTimers::put(std::size_t i, Entry e) {
  heap_[i] = e;
  e.connection->pacing->index = static_cast<std::uint32_t>(i);
}

void PacingTimers::rise(std::size_t i, Entry e) {
  for (; i != 0 && heap_[(i - 1) / 2].when > e.when; i = (i - 1) / 2) put(i, heap_[(i - 1) / 2]);
  put(i, e);
}

void PacingTimers::sink(std::size_t i, Entry e) {
  for (;;) {
    std::size_t child = 2 * i + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].when < heap_[child].when) ++child;
    if (heap_[child].when >= e.when) break;
    put(i, heap_[child]);
    i = child;
  }
  put(i, e);
}

void PacingTimers::arm(Connection& c, Time when) {
  const std::uint32_t at = c.pacing->index;
  if (at == UINT32_MAX) {
    heap_.push_back({});
    return rise(heap_.size() - 1, {when, &c});
  }
  const bool later = when > heap_[at].when;
  later ? sink(at, {when, &c}) : rise(at, {when, &c});
}

void PacingTimers::cancel(Connection& c) {
  const std::uint32_t at = std::exchange(c.pacing->index, UINT32_MAX);
  if (at == UINT32_MAX) return;
  const Entry last = heap_.back();
  heap_.pop_back();
  if (at == heap_.size()) return;
  if (at != 0 && heap_[(at - 1) / 2].when > last.when)
    rise(at, last);
  else
    sink(at, last);
}

Connection* PacingTimers::expire(Time now) {
  if (!due(now)) return nullptr;
  Connection* c = heap_.front().connection;
  cancel(*c);
  return c;
}

// --- Sender

// It begins, its options or its congestion control have changed.
bool Sender::prepare_pacing(Connection& c) {
  const bool wanted = c.tx.cc->has_model() || c.options.max_pacing_rate != kUnlimitedRate;
  if (!wanted) {
    if (c.pacing == nullptr) return true;
    if (!c.pacing->measured) return drop_pacing(c), true;
    pacing_timers_.cancel(c);
    c.pacing->paced = false;
    c.pacing->rate = c.pacing->limit = kUnlimitedRate;
    return true;
  }
  if (c.pacing == nullptr) c.pacing = new (std::nothrow) Pacing;
  if (c.pacing == nullptr) return false;
  Pacing& p = *c.pacing;
  p.paced = true;
  const std::uint64_t limit = c.options.max_pacing_rate != 0 ? c.options.max_pacing_rate : kUnlimitedRate;  // as Linux
  if (limit > p.limit) {  // what waits was to wait for long
    pacing_timers_.cancel(c);
    p.next = Time{};
    p.rate = window_rate(c);
  }
  p.limit = limit;
  p.set_rate(p.rate);
  return true;
}

void Sender::measure_delivery(Connection& c) {
  if (c.tx.cc == nullptr || !can_send(c.hot.state)) return;
  if (c.pacing == nullptr) {
    c.pacing = new (std::nothrow) Pacing;
    if (c.pacing == nullptr) return;
    c.pacing->paced = false;
  }
  c.pacing->measured = true;
}

void Sender::drop_pacing(Connection& c) {
  pacing_timers_.cancel(c);
  delete std::exchange(c.pacing, nullptr);
}

// True: nothing may leave now; the timer comes back to it.
bool Sender::must_pace(Connection& c, Time now) {
  Pacing& p = *c.pacing;
  if (p.may_send(c.hot.mss, now)) return false;
  p.waits = true;
  if (p.index == UINT32_MAX) pacing_timers_.arm(c, p.next);
  return true;
}

// A packet leaves. As Linux, the initial window is not paced.
void Sender::note_paced(Connection& c, const Packet& p) {
  const auto& h = c.hot;
  const bool alone = h.snd_una == h.snd_nxt;
  c.pacing->delivery.on_sent(p.seq, p.seq + p.payload_len, p.sent_at, alone);
  if (c.bytes_acked + (h.snd_nxt - h.snd_una) >= std::uint64_t{kUnpaced} * h.mss) c.pacing->on_sent(p.payload_len);
}

std::size_t Sender::run_pacing(Time now) {
  std::size_t n = 0;
  while (Connection* c = pacing_timers_.expire(now)) {
    push(*c, now);
    ++n;
  }
  return n;
}

// As Linux's tcp_update_pacing_rate, for those that have a window only: twice what it makes in slow start, and a fifth more
// beyond it.
std::uint64_t Sender::window_rate(const Connection& c) {
  if (c.tx.srtt <= Duration::zero()) return kUnlimitedRate;
  const double gain = c.hot.cwnd < c.tx.ssthresh / 2 ? 2.0 : 1.2;
  const double window = std::max<std::uint32_t>(c.hot.cwnd, c.hot.snd_nxt - c.hot.snd_una);
  return static_cast<std::uint64_t>(window * gain * 1e9 / static_cast<double>(c.tx.srtt.count()));
}

// Draft section 3.4: nothing more to send, and the window would allow it.
void Sender::note_app_limited(Connection& c) {
  const auto& h = c.hot;
  if (c.tx.unsent != nullptr || h.flight() >= h.cwnd) return;
  if (c.tx.scoreboard != nullptr && c.tx.scoreboard->has_lost()) return;
  c.pacing->delivery.note_app_limited(h.flight());
}

void Sender::finish_rate_sample(Connection& c, const AckSample& a, Time now) {
  const std::uint32_t lost = c.tx.scoreboard != nullptr ? c.tx.scoreboard->take_newly_lost() : 0;
  auto& d = c.pacing->delivery;
  d.on_acked(c.hot.snd_una);
  d.finish(a.delivered, lost, std::min(c.recovery.min_rtt, c.recovery.former_min_rtt), now);
}

}  // namespace mtcp::stack
