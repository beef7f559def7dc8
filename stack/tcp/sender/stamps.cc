#include "stack/tcp/sender/stamps.hh"

#include <algorithm>

#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kReportMemory = 768;  // of one without data (Linux's SKB_TRUESIZE(0))

bool holds(const Packet& p, Seq byte) { return byte - p.seq < p.payload_len; }

}  // namespace

bool Sender::want_stamps(Connection& c, std::uint8_t kinds, bool with_frames) {
  ConnectionExtras* x = Tcp::need_extras(c);
  if (x == nullptr) return false;
  if (x->stamps == nullptr) {
    if (kinds == 0) return true;
    x->stamps.reset(new (std::nothrow) Stamps);
    if (x->stamps == nullptr) return false;
  }
  x->stamps->wanted = kinds;
  x->stamps->with_frames = with_frames;
  c.stamped = kinds != 0 || !x->stamps->requests.empty();
  return true;
}

// Of the last byte of what has been written. As Linux: of what waits together there is one time, that of the last write's end.
void Sender::request_stamp(Connection& c) {
  Stamps& s = *c.extras->stamps;
  const Packet* last = c.tx.queue.back();
  if (s.wanted == 0 || last == nullptr) return;
  const Seq byte = last->seq + last->payload_len - 1;
  if (!s.requests.empty() && last->transmissions == 0 && at_or_after(s.requests.back().byte, last->seq)) {
    s.requests.back().byte = byte;
    s.requests.back().kinds = static_cast<std::uint8_t>(s.requests.back().kinds | s.wanted);
  } else {
    s.requests.push_back({byte, s.wanted});
  }
}

// `p` has left; `out` is it, or the copy that has. Each time that it does counts, as in Linux.
void Sender::stamp_sent(Connection& c, const Packet& p, const Packet& out, Time now) {
  const Stamps& s = *c.extras->stamps;
  for (const Stamps::Request& r : s.requests) {
    if (!holds(p, r.byte)) continue;
    std::vector<std::byte> frame;
    if (s.with_frames && &out == &p) frame.assign(p.data, p.data + p.len);
    if ((r.kinds & kStampQueued) != 0) report_stamp(c, {kStampQueued, r.byte, now, frame});
    if ((r.kinds & kStampSent) != 0) report_stamp(c, {kStampSent, r.byte, now, std::move(frame)});
  }
}

// Everything before `ack` is about to be removed from the queue.
void Sender::stamp_acked(Connection& c, Seq ack, Time now) {
  Stamps& s = *c.extras->stamps;
  const Packet* p = c.tx.queue.front();
  auto next = s.requests.begin();
  for (; next != s.requests.end() && before(next->byte, ack); ++next) {
    if ((next->kinds & kStampAcknowledged) == 0) continue;
    std::vector<std::byte> payload;
    if (s.with_frames) {
      while (p != nullptr && !holds(*p, next->byte)) p = p->next;
      if (p != nullptr) payload.assign(p->buf + p->payload_offset, p->buf + p->payload_offset + p->payload_len);
    }
    report_stamp(c, {kStampAcknowledged, next->byte, now, std::move(payload)});
  }
  s.requests.erase(s.requests.begin(), next);
  c.stamped = s.wanted != 0 || !s.requests.empty();
}

// As Linux: what nobody takes may fill the receive buffer, and the rest is lost.
void Sender::report_stamp(Connection& c, StampReport report) {
  Stamps& s = *c.extras->stamps;
  const std::uint32_t memory = kReportMemory + static_cast<std::uint32_t>(report.frame.size());
  if (s.memory + memory >= c.rx.buffer) return;
  s.memory += memory;
  s.reports.push_back(std::move(report));
  tcp_.raise(c, SocketBase::kStampEdge);
}

bool Sender::has_stamps(const Connection& c) {
  const ConnectionExtras* x = c.extras.get();
  return x != nullptr && x->stamps != nullptr && !x->stamps->reports.empty();
}

bool Sender::take_stamp(Connection& c, StampReport& report) {
  if (!has_stamps(c)) return false;
  Stamps& s = *c.extras->stamps;
  report = std::move(s.reports.front());
  s.reports.erase(s.reports.begin());
  s.memory -= kReportMemory + static_cast<std::uint32_t>(report.frame.size());
  return true;
}

}  // namespace mtcp::stack
