// Connections that nobody here will accept go to a stack of the same device that does (Linux's tcp_migrate_req): those of a
// listener which its application has left to another process, or does not watch just now. They are offered, and go to
// who asks for them because it accepts; or, when this stack ends, to one that has the listener. What they arrive as: adopt.cc.
#include <algorithm>
#include <cstring>

#include "stack/port/port.hh"
#include "stack/tcp/migration/handover.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

// How long a connection waits for another stack, and a left listener for another process to have it.
constexpr Duration kPatience = seconds(5);
constexpr int kLastBursts = 8, kMostBursts = 256;
constexpr Duration kOfferAgain = milliseconds(1);
constexpr std::size_t kMostData = 100;  // messages with data, for one connection
// Head and data fit into a frame: the head is shorter than the headers that the data came with.
static_assert(sizeof(HandoverHead) <= 54);

template <typename Message>
void put(std::vector<std::byte>& out, const Message& m) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&m);
  out.insert(out.end(), bytes, bytes + sizeof m);
}

std::uint32_t ms_since(Time then, Time now) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>((now - then) / milliseconds(1), 0, 1 << 30));
}

std::uint8_t ecn_of(const Connection& c) {
  return static_cast<std::uint8_t>((c.hot.ecn ? 1 : 0) | (c.recovery.ecn_echo ? 2 : 0) | (c.recovery.ecn_seen ? 4 : 0));
}

HandoverConnection describe(const Connection& c, HandoverHead::Kind kind, Time now) {
  const auto& h = c.hot;
  const Urgent* urgent = Tcp::find_urgent(c);
  HandoverConnection m;
  m.head.kind = kind;
  m.head.key = c.key;
  m.terms = {c.iss.value(), c.irs.value(), c.ts_offset,  h.ts_recent,     ms_since(c.created, now), c.peer_mss,
             h.snd_wscale,  h.rcv_wscale,  h.timestamps, h.wscale, h.sack_ok, ecn_of(c)};
  m.snd_nxt = h.snd_nxt.value();
  m.snd_wl1 = h.snd_wl1.value();
  m.snd_wl2 = h.snd_wl2.value();
  m.snd_wnd = h.snd_wnd;
  m.max_window = c.tx.max_window;
  m.rcv_nxt = h.rcv_nxt.value();
  m.rcv_adv = h.rcv_adv.value();
  m.ts_recent_age = Tcp::ts_clock(now) / 1000 - c.rx.ts_recent_age;
  m.data = c.rx.queued;
  m.path_mtu = c.path_mtu;
  m.mss = h.mss;
  m.fin_received = h.fin_received;
  m.srtt = c.tx.srtt.count();
  m.rttvar = c.tx.rttvar.count();
  m.rto = c.tx.rto.count();
  if (urgent != nullptr) {
    m.urgent_seq = urgent->seq.value();
    m.urgent_state = static_cast<std::uint8_t>(urgent->state);
    m.urgent_byte = std::to_integer<std::uint8_t>(urgent->byte);
  }
  return m;
}

// Messages one behind the other, and where each begins.
class Messages {
 public:
  template <typename Message>
  void add(const Message& m) {
    starts_.push_back(bytes_.size());
    put(bytes_, m);
  }
  // What is queued for the application, in pieces of at most `most` bytes whatever packets it came in.
  void add_data(const Connection& c, std::size_t most) {
    HandoverHead head;
    head.kind = HandoverHead::data;
    head.key = c.key;
    Seq at = c.hot.rcv_nxt - c.rx.queued - (c.hot.fin_received ? 1U : 0U);
    std::size_t room = 0;
    for (const Packet* p = c.rx.queue.front(); p != nullptr; p = p->next)
      for (std::size_t done = 0; done < p->len;) {
        if (room == 0) {
          head.seq = at.value();
          add(head);
          room = most;
        }
        const std::size_t n = std::min<std::size_t>(room, p->len - done);
        bytes_.insert(bytes_.end(), p->data + done, p->data + done + n);
        done += n;
        room -= n;
        at += static_cast<std::uint32_t>(n);
      }
  }
  [[nodiscard]] std::vector<std::span<const std::byte>> spans() const {
    std::vector<std::span<const std::byte>> out;
    for (std::size_t i = 0; i < starts_.size(); ++i) {
      const std::size_t end = i + 1 < starts_.size() ? starts_[i + 1] : bytes_.size();
      out.emplace_back(bytes_.data() + starts_[i], end - starts_[i]);
    }
    return out;
  }

 private:
  std::vector<std::byte> bytes_;
  std::vector<std::size_t> starts_;
};

}  // namespace

Migration::Migration(Tcp& tcp) : tcp_(tcp), options_(tcp.options), stats_(tcp.stats) {}

void Migration::run_timers(Time now) {
  if (!adopting_.empty()) abandon_adoptions(now);
  must_look_ = must_look_ || now >= due_;
}

Time Migration::next_deadline() const { return adopting_.empty() ? due_ : std::min(due_, adopting_.front().deadline); }

void Migration::listen_again() {
  if (closing_) tcp_.steering->set_closing(false);
  closing_ = false;
}

// --- sending

// What can't be described stays: the peer has not acknowledged something, or it is over, or lives in this process only, or has
// itself not yet arrived as a whole.
bool Migration::is_describable(const Connection& c) const {
  const auto& h = c.hot;
  const bool simple = (h.state == State::established || h.state == State::close_wait) && c.tx.queue.empty() && h.snd_una == h.snd_nxt;
  return simple && !c.path->local && !is_arriving(c) && c.rx.queued <= piece() * kMostData;
}

std::size_t Migration::piece() const { return tcp_.port->mtu() - 40; }

// `to`: who has asked for it.
Migration::Outcome Migration::migrate(Connection& c, const Destination& to, Time now) {
  if (!is_describable(c) || c.hot.snd_nxt != c.iss + 1) return Outcome::impossible;
  Messages messages;
  messages.add(describe(c, HandoverHead::connection, now));
  messages.add_data(c, piece());
  const auto spans = messages.spans();
  const bool gone = to.stack ? tcp_.steering->migrate(c.key, spans, *to.stack) : tcp_.steering->migrate_away(c.key, spans, to.may_wait);
  if (!gone) return Outcome::refused;
  stats_.add(Counter::connections_handed_over);
  probe::migrate(c.key);
  return Outcome::done;
}

// It lives on elsewhere: no FIN, no RST.
void Migration::detach_silently(Connection& c) {
  for (TimerNode* timer : {&c.retransmit_timer, &c.delayed_ack_timer, &c.life_timer}) tcp_.wheel.cancel(*timer);
  for (ListHook* hook : {&c.ack_hook, &c.push_hook, &c.event_hook, &c.accept_hook}) hook->unlink();
  if (c.listener != nullptr) --c.listener->accept_count;
  c.listener = nullptr;
  tcp_.destroy(c);
}

// One that has been accepted. Not while there is a gap in what has come: the peer would send what lies behind it only after a time-out.
bool Migration::pass(Connection& c, std::uint32_t to, Time now) {
  const bool whole = !c.hot.fin_queued && c.rx.ooo_bytes == 0 && c.listener == nullptr && !c.detached;
  if (tcp_.steering == nullptr || !whole || !is_describable(c)) return false;
  Messages messages;
  messages.add(describe(c, HandoverHead::passed, now));
  messages.add_data(c, piece());
  if (!tcp_.steering->pass_to(c.key, messages.spans(), to)) return false;
  stats_.add(Counter::connections_handed_over);
  probe::migrate(c.key);
  detach_silently(c);
  return true;
}

// As many as that, or as there is room for. How many went.
std::uint32_t Migration::migrate_queue(Listener& l, const Destination& to, std::uint32_t most, Time now) {
  std::uint32_t n = 0;
  for (Connection* c = l.accept_queue.front(); c != nullptr && n < most;) {
    Connection* next = l.accept_queue.next(*c);
    const Outcome outcome = migrate(*c, to, now);
    if (outcome == Outcome::refused) break;  // and so would be the others
    if (outcome == Outcome::done) detach_silently(*c), ++n;
    c = next;
  }
  return n;
}

// Another stack accepts from the same listener.
void Migration::serve_pull(const Packet& p, Time now) {
  constexpr std::uint32_t kAtATime = 16;
  Endpoint local;
  if (p.len != sizeof local) return;
  std::memcpy(&local, p.data, sizeof local);
  std::uint32_t left = kAtATime;
  tcp_.passive.listeners.for_each([&](Listener& l, std::uint32_t) {
    if ((!l.left && !l.unwatched) || l.local.port != local.port) return;
    if (!l.local.address.is_any() && !local.address.is_any() && !(l.local == local)) return;
    l.offered = {};
    const std::uint32_t given = migrate_queue(l, {.stack = p.flow_hash}, left, now);
    left -= given;
    probe::steal(local.port, p.flow_hash, given);
    must_look_ = must_look_ || l.left || l.accept_count != 0;
  });
}

// Those that have waited as long as that for another stack, and those that are over.
void Migration::reset_unaccepted(Listener& l, Duration patience, Time now) {
  for (Connection* c = l.accept_queue.front(); c != nullptr;) {
    Connection* next = l.accept_queue.next(*c);
    if (c->hot.state == State::closed || now - std::max(c->created, l.left_since) >= patience) {
      c->accept_hook.unlink();
      --l.accept_count;
      c->listener = nullptr;
      tcp_.abort(*c, now);
    }
    c = next;
  }
}

// When it is to be looked at again.
Time Migration::tend(Listener& l, Time now) {
  const Time next_tick = Time(milliseconds(tcp_.priv->last_tick + 1));
  if (!l.left && !l.unwatched) return kNever;
  if (l.accept_count != 0 && now - l.offered >= kOfferAgain) {
    l.offered = now;
    tcp_.steering->offer(l.local);
  }
  if (!l.left) return l.accept_count != 0 ? next_tick : kNever;
  // Whoever has it will accept some time; and there is no end to the wait while a process without a stack has it.
  if (now >= l.left_since + kPatience) {
    const bool others = tcp_.steering->others_listen(l.local);
    if (others ? l.accept_count != 0 : still_held(l)) l.left_since = now;
  }
  reset_unaccepted(l, kPatience, now);
  if (l.accept_count != 0) return next_tick;
  // A while longer, also if others serve: what they sent before they knew must not find it gone.
  const Time end = l.left_since + kPatience;
  if (now < end) return end;
  if (l.syn_count != 0) return kNever;  // these go on here, and forget_syn_entry() tells of their end
  tcp_.passive.close(l, now);
  return kNever;
}

void Migration::hand_over_waiting(Time now) {
  must_look_ = false;
  Time due = kNever;
  bool offering = false;
  if (tcp_.steering != nullptr)
    tcp_.passive.listeners.for_each([&](Listener& l, std::uint32_t) {
      offering = offering || (l.accept_count != 0 && (l.left || l.unwatched));
      due = std::min(due, tend(l, now));
    });
  if (offering != offering_) tcp_.steering->set_offering(offering);
  offering_ = offering;
  due_ = due;
}

void Migration::migrate_half_open(Listener& l, bool may_wait, Time now) {
  if (l.syn_count == 0 || !may_wait) return;  // nobody else has it, or will
  tcp_.passive.entries.for_each([&](SynEntry& e, std::uint32_t) {
    if (e.listener != &l || e.path->local) return;
    // The peer has taken another stack's answer, which says that the flow is its own.
    if (!tcp_.steering->publish(e.key, Steering::FlowKind::half_open)) return tcp_.passive.drop(e);
    HandoverHalfOpen m;
    m.head.kind = HandoverHead::half_open;
    m.head.key = e.key;
    m.terms = {e.iss.value(), e.irs.value(), e.ts_offset, e.ts_recent, ms_since(e.created, now), e.terms.peer_mss,
               e.terms.snd_wscale, e.rcv_wscale, e.terms.timestamps, e.terms.wscale, e.terms.sack, e.terms.ecn};
    m.window = e.window;
    m.retries = e.retries;
    m.acked = e.acked;
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(&m), sizeof m);
    if (!tcp_.steering->migrate_away(e.key, {&bytes, 1}, true)) return stats_.add(Counter::half_open_lost);
    stats_.add(Counter::connections_handed_over);
    probe::migrate(e.key);
    tcp_.passive.drop(e);
  });
}

// A process without a stack has the listener, or one whose stack has not begun to serve: connections may wait for that.
bool Migration::still_held(const Listener& l) const { return still_held_ && still_held_(l.local); }

// The process ends: whoever has not been accepted by now will not be here. What comes from now on is for others; what is
// there already, or has begun to arrive, is there as a whole (unless a part of it was lost for want of a packet), and goes.
// How many connections found no room with those who have their listener: they may yet.
std::size_t Migration::end_listeners(bool last_try, Time now) {
  if (tcp_.steering == nullptr) return 0;
  tcp_.passive.listeners.for_each([&](Listener& l, std::uint32_t) {
    tcp_.others.forget_listener(l);
  });
  const auto wanted = [this](int i) { return i < kLastBursts || (i < kMostBursts && !adopting_.empty()); };
  for (int i = 0; !closing_ && wanted(i) && tcp_.receive_burst(now, nullptr) != 0; ++i) {
  }
  closing_ = true;
  tcp_.steering->set_closing(true);
  std::size_t waiting = 0;
  tcp_.passive.listeners.for_each([&](Listener& l, std::uint32_t) {
    const bool others = tcp_.steering->others_listen(l.local);
    const bool may_wait = (l.accept_count != 0 || l.syn_count != 0) && (others || still_held(l));
    migrate_queue(l, {.may_wait = may_wait}, UINT32_MAX, now);
    if (l.accept_count != 0 && others && !last_try) {
      waiting += l.accept_count;
      return;
    }
    migrate_half_open(l, may_wait, now);
    reset_unaccepted(l, Duration::zero(), now);
  });
  return waiting;
}

// --- leaving

bool Migration::takes_new(const Listener& l, const Endpoint& local, Time now) const {
  return l.left && now - l.left_since < kPatience && !tcp_.steering->others_listen(local);
}

void Migration::leave(Listener& l, Time now) {
  const Endpoint local = l.local;
  auto& left = tcp_.passive.left;
  if (std::find(left.begin(), left.end(), local) == left.end()) left.push_back(local);
  if (tcp_.steering == nullptr || local.address.is_loopback()) return tcp_.passive.close(l, now);
  l.left = true;
  l.left_since = now;
  l.user = nullptr;
  l.event_hook.unlink();
  tcp_.others.note_listener(l);
  tcp_.others.update_serving();
  // What came by the loopback wire nobody else can take.
  for (Connection* c = l.accept_queue.front(); c != nullptr;) {
    Connection* next = l.accept_queue.next(*c);
    if (c->path->local) {
      c->accept_hook.unlink();
      --l.accept_count;
      c->listener = nullptr;
      tcp_.abort(*c, now);
    }
    c = next;
  }
  hand_over_waiting(now);
}

// A listener that comes back finds what the one before it had left.
void Migration::return_to(Listener& l) {
  std::vector<Listener*> former;
  tcp_.passive.listeners.for_each([&](Listener& other, std::uint32_t) {
    if (other.left && other.local == l.local) former.push_back(&other);
  });
  for (Listener* old : former) {
    tcp_.passive.entries.for_each([&](SynEntry& e, std::uint32_t) {
      if (e.listener == old) e.listener = &l;
    });
    for (Connection* c = old->accept_queue.front(); c != nullptr; c = old->accept_queue.next(*c)) c->listener = &l;
    l.accept_queue.splice_back(old->accept_queue);
    l.accept_count += std::exchange(old->accept_count, 0);
    l.syn_count += std::exchange(old->syn_count, 0);
    tcp_.passive.close(*old, Time{});  // nothing is left in it
  }
  if (l.accept_count != 0) tcp_.raise(l, SocketBase::kReadEdge);
}

void Migration::set_watched(Listener& l, bool watched) {
  l.unwatched = !watched;
  tcp_.others.note_listener(l);
  if (l.accept_count == 0) return;
  if (watched)
    tcp_.raise(l, SocketBase::kReadEdge);
  else
    must_look_ = true;
}

}  // namespace mtcp::stack
