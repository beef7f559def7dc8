// Passive opens: listeners, and how a segment finds its own.
#include <algorithm>

#include "stack/port/port.hh"
#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

FlowKey listener_key(const Endpoint& e) {
  return {e.address, e.address.is_v4() ? IpAddress::any_v4() : IpAddress::any_v6(), e.port, 0};
}

// A SYN; but one from this process nobody else will ever see.
bool may_be_anothers(const Network& network, const Segment& s) {
  return s.has(kSyn) && !s.has(kAck) && !s.has(kRst) && !network.is_local(s.key.remote);
}

}  // namespace

PassiveOpens::PassiveOpens(Tcp& tcp, const Secrets& secrets)
    : listeners(65536),
      entries(std::max(tcp.options.tcp.max_syn_backlog, 4096U) * 4),
      tcp_(tcp),
      options_(tcp.options),
      stats_(tcp.stats),
      table_(derive_key(secrets.key, KeyPurpose::listeners), 64),
      cookie_key_(derive_key(secrets.key, KeyPurpose::cookies)),
      fast_open_key_(derive_key(secrets.lasting, KeyPurpose::fast_open)),
      filter_(tcp.options.filter, derive_key(secrets.key, KeyPurpose::filter)) {}

Result<Listener*> PassiveOpens::listen(const Endpoint& local, const Worker::ListenOptions& o) {
  if (local.port == 0) return Errc::invalid;
  if (!local.address.is_any() && !tcp_.network.is_local(local.address)) return Errc::address_unavailable;
  const auto in_use = [&](const IpAddress& a, auto&& conflicts) {
    const Endpoint e{a, local.port};
    return static_cast<bool>(
        table_.find(table_.hash(listener_key(e)), [&](FlowRef r) {
          const Listener& other = listeners.at(r.index());
          return other.local == e && !other.left && !(other.reuse_port && o.reuse_port) && conflicts(other);
        }));
  };
  bool taken = in_use(local.address, [](const Listener&) { return true; });
  // A dual-stack :: and 0.0.0.0 want the same packets.
  if (local.address == IpAddress::any_v4())
    taken = taken || in_use(IpAddress::any_v6(), [](const Listener& other) { return !other.v6_only; });
  if (local.address == IpAddress::any_v6() && !o.v6_only)
    taken = taken || in_use(IpAddress::any_v4(), [](const Listener&) { return true; });
  if (taken) return Errc::address_in_use;

  const std::uint32_t index = listeners.create();
  if (index == Slab<Listener>::kNone) return Errc::no_buffers;
  Listener& l = listeners.at(index);
  l.index = index;
  l.local = local;
  l.options = o.socket;
  l.backlog = o.backlog;
  l.v6_only = o.v6_only;
  l.reuse_port = o.reuse_port;
  l.defer_accept = o.defer_accept;
  l.fast_open_limit = o.fast_open_limit;
  l.fast_open_keys = o.fast_open_keys;
  const std::uint32_t hash = table_.hash(listener_key(local));
  if (!table_.insert(hash, FlowRef(FlowRef::Kind::connection, index))) {
    listeners.destroy(index);
    return Errc::no_buffers;
  }
  tcp_.active.ports.hold(local.port);
  std::erase(left, local);
  tcp_.migration.listen_again();
  tcp_.migration.return_to(l);
  tcp_.others.note_listener(l);
  tcp_.others.update_serving();
  return &l;
}

void PassiveOpens::close(Listener& l, Time now) {
  entries.for_each([&](SynEntry& e, std::uint32_t) {
    if (e.listener == &l) drop(e);
  });
  while (Connection* c = l.accept_queue.pop_front()) {
    c->listener = nullptr;
    tcp_.abort(*c, now);
  }
  tcp_.active.ports.release(l.local.port);
  table_.erase(table_.hash(listener_key(l.local)),
                             FlowRef(FlowRef::Kind::connection, l.index));
  tcp_.others.forget_listener(l);
  listeners.destroy(l.index);
  tcp_.others.update_serving();
}

bool PassiveOpens::left_to_another(const Segment& s) const {
  if (left.empty() || !may_be_anothers(tcp_.network, s)) return false;
  // Nobody has gone on with it.
  if (tcp_.steering != nullptr && !tcp_.steering->others_listen({s.key.local, s.key.local_port})) return false;
  return std::any_of(left.begin(), left.end(), [&](const Endpoint& e) {
    return e.port == s.key.local_port && (e.address.is_any() || e.address == s.key.local);
  });
}

bool PassiveOpens::is_kernels_next(const Segment& s) const { return tcp_.kernel_share != nullptr && may_be_anothers(tcp_.network, s); }

bool PassiveOpens::is_expected(const Segment& s, Time now) {
  constexpr Duration kBetweenQuestions = milliseconds(1), kPatience = seconds(3);
  if (!expected_ || !may_be_anothers(tcp_.network, s)) return false;
  const Endpoint local{s.key.local, s.key.local_port};
  if (now >= next_question_) {
    next_question_ = now + kBetweenQuestions;
    const bool expected = expected_(local);
    if (expected && local != last_expected_) expected_since_ = now;
    if (expected) last_expected_ = local;
    if (!expected && local == last_expected_) last_expected_ = {};
  }
  return local == last_expected_ && now - expected_since_ < kPatience;
}

Connection* PassiveOpens::accept(Listener& l) {
  Connection* c = l.accept_queue.pop_front();
  if (c == nullptr) return nullptr;
  --l.accept_count;
  c->listener = nullptr;
  probe::accept(c->key, l.accept_count);
  return c;
}

Listener* PassiveOpens::find_listener(const Endpoint& local, std::uint32_t hash, bool was_left) {
  const auto lookup = [&](const IpAddress& address, bool for_v4) -> Listener* {
    const Endpoint e{address, local.port};
    const std::uint32_t h = table_.hash(listener_key(e));
    std::uint32_t members = 0, wanted = 0;
    const auto match = [&](FlowRef r) {
      const Listener& l = listeners.at(r.index());
      if (!(l.local == e) || l.left != was_left || (for_v4 && l.v6_only)) return false;
      // Of a SO_REUSEPORT group, the member that the flow's hash says; it takes one pass to count them.
      return !l.reuse_port || members++ == wanted;
    };
    wanted = UINT32_MAX;
    FlowRef found = table_.find(h, match);
    if (!found && members > 0) {
      wanted = hash % members;
      members = 0;
      found = table_.find(h, match);
    }
    return found ? &listeners.at(found.index()) : nullptr;
  };
  if (Listener* l = lookup(local.address, false)) return l;
  if (local.address.is_v4())
    if (Listener* l = lookup(IpAddress::any_v4(), false)) return l;
  return lookup(IpAddress::any_v6(), local.address.is_v4());
}

}  // namespace mtcp::stack
