// When packets become scarce: who pays first. Data out of order, which the peer has still; then connections that
// their applications have closed; and living ones only where otherwise nobody could be served.
#include "stack/tcp/memory.hh"

#include <algorithm>
#include <array>
#include <cstring>

#include "stack/tcp/private.hh"

namespace mtcp::stack {
namespace {

constexpr std::size_t kParts = 64;  // a share is this part of what is left
constexpr int kMostVictims = 64;    // in one turn
constexpr Duration kScanInterval = milliseconds(10);

}  // namespace

// --- the budget

void MemoryBudget::derive() {
  const PacketPool& pool = cache_.pool();
  capacity_ = pool.capacity();
  buffer_ = std::max<std::size_t>(pool.buffer_size(), 1);
  const std::size_t kept = device_packets_ + cache_.reserve();
  const std::size_t usable = capacity_ > kept ? capacity_ - kept : 1;
  // The last sixteenth is for who holds nothing yet, and for segments without data.
  const std::size_t most = usable - usable / 16;
  const auto packets = [&](std::uint64_t wanted, std::size_t otherwise) {
    return wanted != 0 ? std::clamp<std::size_t>(wanted / buffer_, 1, most) : otherwise;
  };
  high_ = packets(wanted_.high, most);
  pressure_ = std::min(packets(wanted_.pressure, high_ / 2), high_);
  low_ = std::min(packets(wanted_.low, high_ * 3 / 8), pressure_);
  const std::size_t taken = pressure_ + device_packets_;
  cache_.set_plenty(capacity_ > taken ? capacity_ - taken : 0);
}

void MemoryBudget::set_device_packets(std::size_t n) {
  if (n == device_packets_ && capacity_ == cache_.pool().capacity()) return;
  device_packets_ = n;
  derive();
}

std::size_t MemoryBudget::used() const {
  const std::size_t not_used = cache_.pool().available() + cache_.stock() + device_packets_;
  return capacity_ > not_used ? capacity_ - not_used : 0;
}

std::uint32_t MemoryBudget::fair_share(std::size_t used) const {
  // Two packets at least, and near the end one, for who holds nothing.
  const std::uint64_t least = bytes(used < (pressure_ + high_) / 2 ? 2 : 1);
  const std::uint64_t fair = used < high_ ? bytes(high_ - used) / kParts : 0;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(std::max(fair, least), UINT32_MAX));
}

bool MemoryBudget::update_scarce() {
  const PacketPool& pool = cache_.pool();
  // What lies here ready the device can't receive into.
  if (pool.available() < 2 * cache_.reserve()) cache_.give_back();
  const std::size_t now = used();
  const bool pressed = now > pressure_ || (level_ != Level::low && now >= low_);
  cache_.set_pressed(pressed);
  if (!pressed) {
    level_ = Level::low;
    share_ = out_of_order_share_ = UINT32_MAX;
    exhausted_ = false;
    return false;
  }
  if (level_ == Level::low) ++times_pressed_;
  level_ = now >= high_ ? Level::high : Level::pressure;
  const std::size_t out_of_order = std::min(static_cast<std::size_t>(out_of_order_) / buffer_, now);
  share_ = fair_share(now - out_of_order);
  out_of_order_share_ = level_ == Level::high ? 0 : fair_share(now);
  exhausted_ = pool.available() <= cache_.reserve();
  return now + margin() > high_;
}

// --- who pays

void Tcp::update_memory(Time now) {
  if (memory.update()) [[unlikely]] reclaim(now);
}

void Tcp::account_out_of_order(Connection& c, std::int64_t bytes) {
  c.rx.memory = static_cast<std::uint32_t>(c.rx.memory + bytes);
  c.rx.out_of_order_memory = static_cast<std::uint32_t>(c.rx.out_of_order_memory + bytes);
  memory.change_out_of_order(bytes);
  if (bytes > 0) priv->out_of_order.note(c, c.rx.out_of_order_memory);
}

Packet* Tcp::shrink(Packet* p) {
  Packet* little = nullptr;
  if (p->len > kLittlePacket || little_packets.alloc(&little, 1) == 0) return p;
  little->data = little->buf;
  std::memcpy(little->data, p->data, p->len);
  little->len = p->len;
  little->seq = p->seq;
  little->sent_at = p->sent_at;
  cache.free(p);
  return little;
}

void Tcp::reclaim(Time now) {
  int victims = 0;
  const auto goes_on = [&] { return victims++ < kMostVictims && memory.above_target(); };
  while (goes_on()) {
    Connection* c = priv->out_of_order.largest([](const Connection& x) { return x.rx.out_of_order_memory; });
    if (c == nullptr) break;
    receiver.prune_out_of_order(*c);
  }
  // What waits for the device comes back as soon as that goes on, and nobody can be answered before.
  if (sender.device_full) return;
  while (goes_on()) {
    Connection* c = priv->closed.largest([](const Connection& x) { return x.tx.memory; });
    if (c == nullptr || c->tx.memory < memory.buffer()) break;  // or little packets only, which are not scarce
    stats.add(Counter::orphans_killed);
    send_reset(*c, now);
    finish(*c, Errc::ok);
  }
  (void)memory.update();
  if (memory.exhausted() && now >= priv->next_scan) reclaim_from_living(now);
}

// Of a connection that ends with an error: it would go on holding that until its application comes to close it. Not even
// the peer's FIN is an end that could be told then, for some of what preceded it has been lost.
static void discard_unread(Connection& c, PacketCache& cache) {
  auto& rx = c.rx;
  if (rx.queued != 0) c.hot.fin_received = false;
  while (Packet* p = rx.queue.pop_front()) {
    rx.memory -= p->capacity;
    cache.free(p);
  }
  rx.queued = 0;
}

// All that is left is in order, of living connections, and there is no packet for anybody else. Those that hold most
// are reset; of several that hold as much, those from which nothing has been heard for longest.
void Tcp::reclaim_from_living(Time now) {
  struct Holder {
    std::uint32_t bytes, silent;  // silent: ms
    Connection* connection;
  };
  const auto more = [](const Holder& a, const Holder& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.silent > b.silent;
  };
  priv->next_scan = now + kScanInterval;
  std::array<Holder, kMostVictims> largest;  // a heap, the least of them in front
  std::size_t n = 0;
  connections.for_each([&](Connection& c, std::uint32_t) {
    const Holder h{c.rx.memory + c.tx.memory, ts_clock(now) - c.hot.last_received, &c};
    if (h.bytes < memory.buffer() || c.hot.state == State::closed) return;
    if (n == largest.size()) {
      if (!more(h, largest.front())) return;
      std::pop_heap(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(n--), more);
    }
    largest[n++] = h;
    std::push_heap(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(n), more);
  });
  std::sort(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(n), more);
  for (std::size_t i = 0; i < n && memory.above_target(); ++i) {
    Connection& c = *largest[i].connection;
    stats.add(Counter::connections_sacrificed);
    discard_unread(c, cache);  // before the reset, which may need one of its packets
    send_reset(c, now);
    finish(c, Errc::no_buffers);
  }
  (void)memory.update();
}

}  // namespace mtcp::stack
