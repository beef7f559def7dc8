// The peer's urgent data: RFC 9293 3.10.7.4, sixth step, and the reads that it changes; urgent.hh.
#include "stack/tcp/urgent.hh"

#include <vector>

#include "stack/tcp/tcp.hh"

namespace mtcp::stack {
namespace {

// The next byte that the application reads.
Seq next_to_read(const Connection& c) {
  const auto& h = c.hot;
  return h.rcv_nxt - (c.rx.queued + (h.fin_received ? 1U : 0U));
}

Seq end_of_data(const Connection& c) { return next_to_read(c) + c.rx.queued; }

// The byte of the queue that is `offset` bytes behind its first.
std::byte byte_at(const Connection& c, std::uint32_t offset) {
  const Packet* p = c.rx.queue.front();
  for (; offset >= p->len; p = p->next) offset -= p->len;
  return p->data[offset];
}

// At most `bytes` of it.
std::vector<iovec> first_of(std::span<const iovec> data, std::size_t bytes) {
  std::vector<iovec> out;
  for (const iovec& v : data) {
    if (bytes == 0) break;
    out.push_back({v.iov_base, std::min(v.iov_len, bytes)});
    bytes -= out.back().iov_len;
  }
  return out;
}

}  // namespace

Urgent* Tcp::urgent_of(Connection& c) {
  ConnectionExtras* extras = need_extras(c);
  if (extras == nullptr) return nullptr;
  c.urgent = true;
  return &extras->urgent;
}

const Urgent* Tcp::find_urgent(const Connection& c) { return c.urgent ? &c.extras->urgent : nullptr; }

// As Linux's tcp_urg. The segment begins at or beyond RCV.NXT.
void Receiver::on_urgent(Connection& c, const Segment& s, Time now) {
  stats_.add(Counter::urgent_received);
  const Seq seq = s.seq + (s.urgent != 0 ? s.urgent - 1U : 0U);
  if (before(seq, c.hot.rcv_nxt)) return;  // it has been dealt with
  Urgent* known = Tcp::urgent_of(c);
  if (known == nullptr) return;  // without memory it is a byte like any other
  Urgent& u = *known;
  if (u.state == Urgent::Byte::none || after(seq, u.seq)) {
    // The one before was next to be read, and is left out as any: only the newest is remembered.
    if (u.state != Urgent::Byte::none && !c.options.oob_inline && u.seq == next_to_read(c) && c.rx.queued != 0) {
      const iovec one{nullptr, 1};
      (void)take(c, {&one, 1}, {.discard = true}, now);
    }
    u.state = Urgent::Byte::awaited;
    u.seq = seq;
    tcp_.raise(c, SocketBase::kUrgentEdge);
  }
  if (u.state != Urgent::Byte::awaited || u.seq - s.seq >= s.len) return;
  // In order or not: it can be read as soon as it is here.
  u.byte = s.packet->data[u.seq - s.seq];
  u.state = Urgent::Byte::here;
  tcp_.raise(c, SocketBase::kReadEdge);
}

bool Receiver::has_urgent(const Connection& c) const {
  const Urgent* u = Tcp::find_urgent(c);
  if (u == nullptr) return false;
  return u->state == Urgent::Byte::here || (u->state == Urgent::Byte::awaited && before(u->seq, end_of_data(c)));
}

bool Receiver::at_mark(const Connection& c) const {
  const Urgent* u = Tcp::find_urgent(c);
  return u != nullptr && u->state != Urgent::Byte::none && u->seq == next_to_read(c);
}

bool Receiver::skips_next(const Connection& c) const { return !c.options.oob_inline && at_mark(c); }

std::uint32_t Receiver::readable_before_mark(const Connection& c) const {
  const Urgent* u = Tcp::find_urgent(c);
  if (u == nullptr || u->state == Urgent::Byte::none || c.options.oob_inline) return c.rx.queued;
  return std::min(c.rx.queued, u->seq - next_to_read(c));
}

// As Linux's tcp_recv_urg.
Result<std::size_t> Receiver::receive_urgent(Connection& c, std::byte* byte, bool peek) {
  const Urgent* known = Tcp::find_urgent(c);
  if (c.options.oob_inline || known == nullptr || known->state == Urgent::Byte::none || known->state == Urgent::Byte::taken)
    return Errc::invalid;
  Urgent& u = c.extras->urgent;
  if (u.state == Urgent::Byte::awaited) {
    if (!has_urgent(c)) {
      if (c.hot.fin_received || c.read_shut || c.hot.state == State::closed) return std::size_t{0};
      return Errc::would_block;
    }
    u.byte = byte_at(c, u.seq - next_to_read(c));  // it came in a segment without URG
    u.state = Urgent::Byte::here;
  }
  *byte = u.byte;
  if (!peek) u.state = Urgent::Byte::taken;
  return std::size_t{1};
}

// As Linux's tcp_recvmsg: a read ends at the mark; one that begins there leaves the urgent byte out, also if nobody has
// read that.
Result<std::size_t> Receiver::take_around_mark(Connection& c, std::span<const iovec> data, ReceiveFlags flags, Time now) {
  Urgent& u = c.extras->urgent;  // who calls this has seen that there is some
  const std::uint32_t ahead = u.seq - next_to_read(c);
  if (u.state == Urgent::Byte::none || ahead >= c.rx.queued) return take(c, data, flags, now);
  if (ahead > 0) return take(c, first_of(data, ahead), flags, now);
  if (!flags.peek) u.state = Urgent::Byte::none;
  if (c.options.oob_inline) return take(c, data, flags, now);
  std::byte left_out;
  std::vector<iovec> all{{&left_out, 1}};
  all.insert(all.end(), data.begin(), data.end());
  const bool alone = c.rx.queued == 1;
  const auto got = take(c, all, flags, now);
  if (!got) return got;
  if (*got > 1 || !alone) return *got - 1;
  return nothing_there(c);
}

}  // namespace mtcp::stack
