#include "stack/worker.hh"

#include "stack/tcp/private.hh"

namespace mtcp::stack {

Worker::Worker(const Options& options, const Attachment& device, PacketPool& pool, Stats& stats, const Secrets& secrets,
               Time now, KernelNetwork* kernel)
    : tcp_(std::make_unique<Tcp>(options, device, pool, stats, secrets, now, kernel)) {}
Worker::~Worker() = default;

std::size_t Worker::poll(Time now) { return tcp_->poll(now, nullptr); }
std::size_t Worker::poll(Time& now, Clock clock) { return tcp_->poll(now, clock); }
void Worker::flush(Time now) { tcp_->flush(now); }
bool Worker::pending() const { return tcp_->pending(); }
bool Worker::must_poll() const { return tcp_->must_poll(); }
Time Worker::next_deadline() const { return tcp_->next_deadline(); }
Time Worker::pacing_deadline() const { return tcp_->sender.pacing_deadline(); }
SocketBase* Worker::next_event() { return tcp_->events.pop_front(); }
std::size_t Worker::connections() const { return tcp_->connections.size(); }
std::size_t Worker::time_waits() const { return tcp_->time_waits.entries.size(); }

MemoryInfo Worker::memory() const {
  const MemoryBudget& m = tcp_->memory;
  constexpr const char* kLevels[] = {"low", "pressure", "high"};
  return {.used = m.used_bytes(),
          .low = m.low_bytes(),
          .pressure = m.pressure_bytes(),
          .high = m.high_bytes(),
          .out_of_order = m.out_of_order_bytes(),
          .level = kLevels[static_cast<std::size_t>(m.level())],
          .times_pressed = m.times_pressed(),
          .share = m.share(),
          .orphans = tcp_->priv->orphans};
}

Result<Listener*> Worker::listen(const Endpoint& local, const ListenOptions& options) {
  return tcp_->passive.listen(local, options);
}
Connection* Worker::accept(Listener& l) { return tcp_->passive.accept(l); }
void Worker::set_still_held(std::function<bool(const Endpoint&)> held) { tcp_->migration.set_still_held(std::move(held)); }
void Worker::set_expected(std::function<bool(const Endpoint&)> expected) { tcp_->passive.set_expected(std::move(expected)); }
void Worker::set_watched(Listener& l, bool watched) { tcp_->migration.set_watched(l, watched); }
bool Worker::pass(Connection& c, std::uint32_t slot, Time now) { return tcp_->migration.pass(c, slot, now); }
void Worker::expect(const FlowKey& key) { tcp_->migration.expect(key); }
bool Worker::expects(const FlowKey& key) const { return tcp_->migration.expects(key); }
Connection* Worker::take_expected(const FlowKey& key) { return tcp_->migration.take_expected(key); }
void Worker::stop_expecting(const FlowKey& key, Time now) { tcp_->migration.stop_expecting(key, now); }
void Worker::part() { tcp_->others.part(); }
void Worker::close(Listener& l, Time now) { tcp_->passive.close(l, now); }
void Worker::leave(Listener& l, Time now) { tcp_->migration.leave(l, now); }
void Worker::set_filter(std::span<const FilterRule> rules) { tcp_->passive.set_filter(rules); }
Readiness Worker::readiness(const Listener& l) const { return tcp_->readiness(l); }

void Worker::follow_kernel(Time now) { tcp_->follow_kernel(now); }

Result<Connection*> Worker::connect(const Endpoint& local, const Endpoint& remote,
                                    const SocketOptions& options, Time now) {
  auto c = tcp_->active.connect(local, remote, options, now);
  tcp_->transmit_bursts(now);
  return c;
}

Result<Connection*> Worker::connect(const Endpoint& local, const Endpoint& remote, const SocketOptions& options, Time now,
                                    FastOpenStart& start) {
  auto c = tcp_->active.connect(local, remote, options, now, &start);
  tcp_->transmit_bursts(now);
  return c;
}

bool Worker::is_fast_open_ready(const Endpoint& local, const Endpoint& remote, const SocketOptions& options, Time now) {
  const Result<const Path*> path = tcp_->network.path(remote.address, local.address);
  if (!path) return false;
  return tcp_->active.is_fast_open_ready(local.address.is_any() ? (*path)->source : local.address, remote.address, options, now);
}

Result<std::size_t> Worker::send(Connection& c, std::span<const iovec> data, bool more, Time now) {
  return tcp_->sender.send(c, data, more, now);
}
void Worker::end_record(Connection& c) { tcp_->sender.end_record(c); }
Result<std::size_t> Worker::reserve(Connection& c, std::size_t bytes, std::span<iovec> out, Time now) {
  return tcp_->sender.reserve(c, bytes, out, now);
}
void Worker::commit(Connection& c, std::size_t bytes, bool more, Time now) {
  tcp_->sender.commit(c, bytes, more, now);
}
bool Worker::takes_external(const Connection& c) const { return tcp_->sender.takes_external(c); }
Result<std::size_t> Worker::send_external(Connection& c, ExternalMemory& memory, std::uint32_t offset, std::size_t bytes, bool more, Time now) {
  return tcp_->sender.send_external(c, memory, offset, bytes, more, now);
}
Result<std::size_t> Worker::receive(Connection& c, std::span<const iovec> data, ReceiveFlags flags,
                                    Time now) {
  return tcp_->receiver.receive(c, data, flags, now);
}
Result<std::size_t> Worker::send_urgent(Connection& c, std::span<const iovec> data, bool more, Time now) {
  auto n = tcp_->sender.send_urgent(c, data, more, now);
  tcp_->transmit_bursts(now);
  return n;
}
Result<std::size_t> Worker::receive_urgent(Connection& c, std::byte* byte, bool peek) {
  return tcp_->receiver.receive_urgent(c, byte, peek);
}
bool Worker::at_mark(const Connection& c) const { return tcp_->receiver.at_mark(c); }
void Worker::shutdown(Connection& c, bool read, bool write, Time now) { tcp_->shutdown(c, read, write, now); }
void Worker::close(Connection& c, Time now) {
  tcp_->close(c, now);
  tcp_->transmit_bursts(now);
}
void Worker::abort(Connection& c, Time now) { tcp_->abort(c, now); }
std::size_t Worker::migrate_all(Time now) { return tcp_->migration.end_listeners(false, now); }
void Worker::abort_orphans(Time now) { tcp_->abort_orphans(now); }
Readiness Worker::readiness(const Connection& c) const { return tcp_->readiness(c); }
bool Worker::drained(const Connection& c) const { return tcp_->drained(c); }
Errc Worker::take_error(Connection& c) {
  if (c.error != Errc::ok) return std::exchange(c.error, Errc::ok);
  return std::exchange(c.soft_error, Errc::ok);
}
void Worker::set_options(Connection& c, const SocketOptions& options, Time now) {
  tcp_->set_options(c, options, now);
}
void Worker::measure_delivery(Connection& c) { tcp_->sender.measure_delivery(c); }
ConnectionInfo Worker::info(const Connection& c) const { return tcp_->info(c); }
bool Worker::want_stamps(Connection& c, std::uint8_t kinds, bool with_frames) { return tcp_->sender.want_stamps(c, kinds, with_frames); }
bool Worker::has_stamps(const Connection& c) const { return Sender::has_stamps(c); }
bool Worker::take_stamp(Connection& c, StampReport& report) { return Sender::take_stamp(c, report); }
Time Worker::arrival_of(const Connection& c, std::size_t bytes) const { return tcp_->receiver.arrival_of(c, bytes); }
std::size_t Worker::readable_bytes(const Connection& c) const { return tcp_->readable_bytes(c); }
std::size_t Worker::writable_bytes(const Connection& c) const { return tcp_->writable_bytes(c); }

void Worker::for_each(void (*visit)(void* context, const ConnectionInfo& info), void* context) const {
  const Tcp& tcp = *tcp_;
  tcp.connections.for_each([&](const Connection& c, std::uint32_t) { visit(context, tcp.info(c)); });
}

void Worker::set_captures(CaptureSet* captures) { tcp_->tx.set_captures(captures); }
Network& Worker::network() { return tcp_->network; }

}  // namespace mtcp::stack
