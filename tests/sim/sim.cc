#include "tests/sim/sim.hh"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <stdexcept>

namespace mtcp::sim {

namespace {

// The bytes of a stream depend on its ports and direction, so that no two streams are alike.
std::uint64_t pattern_key(std::uint16_t from, std::uint16_t to) {
  return (std::uint64_t{from} << 16 | to) * 0x9e3779b97f4a7c15U;
}
std::byte pattern(std::uint64_t key, std::uint64_t position) {
  const std::uint64_t x = (position >> 3) * 0xd6e8feb86659fd93U + key;
  return static_cast<std::byte>((x ^ x >> 32) >> (position & 7) * 8);
}

std::uint64_t choose_seed(std::uint64_t seed) {
  if (seed != 0) return seed;
  if (const char* s = std::getenv("MTCP_SEED"); s != nullptr) return std::strtoull(s, nullptr, 10);
  return std::random_device{}();
}

}  // namespace

std::byte pattern_of(std::uint16_t from, std::uint16_t to, std::uint64_t position) { return pattern(pattern_key(from, to), position); }

// --- Socket

Socket::Socket(Host& h, Connection& c) : host(h), connection(&c), key(c.key) { c.user = this; }

void Socket::read_some() {
  std::array<std::byte, 16384> buffer;
  const std::uint64_t k = pattern_key(key.remote_port, key.local_port);
  for (std::size_t done = 0; done < read_limit;) {
    const iovec v{buffer.data(), std::min(buffer.size(), read_limit - done)};
    const auto n = host.worker->receive(*connection, {&v, 1}, {}, host.clock());
    if (!n) {
      if (n.error() != Errc::would_block) error = n.error();
      return;
    }
    if (*n == 0) {
      eof = true;
      return;
    }
    for (std::size_t i = 0; i < *n; ++i) wrong += buffer[i] != pattern(k, received + i) ? 1 : 0;
    received += *n;
    done += *n;
  }
}

void Socket::write_some() {
  std::array<std::byte, 16384> buffer;
  const std::uint64_t k = pattern_key(key.local_port, key.remote_port);
  while (sent < to_send) {
    const std::size_t wanted = std::min<std::uint64_t>(buffer.size(), to_send - sent);
    for (std::size_t i = 0; i < wanted; ++i) buffer[i] = pattern(k, sent + i);
    const iovec v{buffer.data(), wanted};
    const auto n = host.worker->send(*connection, {&v, 1}, false, host.clock());
    if (!n) {
      if (n.error() != Errc::would_block && n.error() != Errc::no_buffers) error = n.error();
      return;
    }
    sent += *n;
  }
}

void Socket::kick() {
  if (connection == nullptr) return;
  if (const Errc e = host.worker->take_error(*connection); e != Errc::ok) error = e;
  const State s = connection->hot.state;
  if (s == State::syn_sent || s == State::syn_received) return;
  if (s != State::closed) connected = true;
  if (reading && !eof) read_some();
  if (echo) to_send = received;
  if (error == Errc::ok && !write_shut_) write_some();
  const bool done = sent >= to_send;
  if (done && shutdown_when_sent && !write_shut_) shutdown_write();
  if (error != Errc::ok || (done && close_when_sent) || (eof && close_on_eof && done)) close();
}

void Socket::shutdown_write() {
  write_shut_ = true;
  host.worker->shutdown(*connection, false, true, host.clock());
}

void Socket::close() {
  if (connection != nullptr) host.worker->close(*connection, host.clock());
  connection = nullptr;
}

void Socket::abort() {
  if (connection != nullptr) host.worker->abort(*connection, host.clock());
  connection = nullptr;
}

// --- Host

Host::Host(Sim& s, std::uint8_t number, const std::function<void(Options&)>& tune, std::size_t packets)
    : sim(s),
      address(IpAddress::v4(10, 0, 0, number)),
      pool(packets),
      port(s.wire, s.wire.add_port(MacAddress{{2, 0, 0, 0, 0, static_cast<std::uint8_t>(number - 1)}}),
           pool) {
  options.interface.addresses.push_back({address, 120});
  options.tcp.max_connections = 65536;
  if (tune) tune(options);
  secrets.host = s.machine;
  for (auto* secret : {&secrets.key, &secrets.lasting})
    for (auto& k : *secret) k = s.random();
  worker = std::make_unique<Worker>(options, &port, pool, stats, secrets, s.now);
}

Host::Host(Sim& s, SimSharedDevice& d, IpAddress a, std::uint64_t p)
    : sim(s), address(a), pool(1), port(s.wire, 0, pool), device(&d), process(p) {
  options.interface.addresses.push_back({address, 120});
  options.tcp.max_connections = 65536;
  d.process = p;
  steering = SteeringPort::join(d);
  if (steering == nullptr) throw std::runtime_error("no slot for another stack");
  d.process = 0;
  secrets = {.key = d.control().secrets(), .lasting = d.control().secrets(), .host = s.machine};
  worker = std::make_unique<Worker>(options, steering.get(), steering->pool(), stats, secrets, s.now);
  worker->set_still_held([&s](const Endpoint& e) { return s.held.contains(e.port); });
  worker->set_expected([&s](const Endpoint& e) { return s.expected.contains(e.port); });
}

Host::~Host() {
  if (device != nullptr && worker != nullptr) kill();
}

void Host::end() {
  for (auto& s : sockets) s->connection = nullptr;
  listeners.clear();
  worker.reset();
  steering.reset();
  device->process = 0;
}

void Host::kill() {
  device->process = 0;
  device->dead.insert(process);
  const std::uint32_t stack = steering->number();
  end();
  device->lose_pool(stack);
}

void Host::restart(bool kept) {
  sockets.clear();
  accepted.clear();
  listeners.clear();
  worker.reset();
  for (auto& k : secrets.key) k = sim.random();
  for (auto& k : secrets.lasting) k = kept ? k : sim.random();
  worker = std::make_unique<Worker>(options, &port, pool, stats, secrets, sim.now);
}

void Host::share_with(Steering& others) {
  worker = std::make_unique<Worker>(options, Attachment(&port, &others), pool, stats, secrets, sim.now);
}

void Host::share_with(KernelShare& kernel) {
  worker = std::make_unique<Worker>(options, Attachment(&port, nullptr, &kernel), pool, stats, secrets, sim.now);
}

void Host::exit() {
  worker->abort_orphans(clock());
  worker->flush(clock());
  device->process = process;
  end();
}

Time Host::clock() {
  clock_ = std::max(clock_, sim.now - clock_delay);
  return clock_;
}

Time Host::next_deadline() const {
  if (sim.now < stalled_until) return stalled_until;
  const Time due = worker->next_deadline();
  const Time t = due == kNever ? kNever : due + clock_delay;
  if (steering == nullptr) return t;
  const Duration most = steering->max_sleep();
  return most == Duration::max() ? t : std::min(t, sim.now + most);
}

void Host::watch(Listener& l, bool on) { worker->set_watched(l, on); }

Listener& Host::listen(std::uint16_t p, Worker::ListenOptions o) {
  const auto l = worker->listen({address, p}, o);
  if (!l) throw std::runtime_error(std::string("listen: ") + name(l.error()));
  listeners.push_back(*l);
  return **l;
}

void Host::close(Listener& l) {
  forget(l);
  worker->close(l, clock());
}

void Host::leave(Listener& l) {
  forget(l);
  worker->leave(l, clock());
}

Socket* Host::try_connect(const Endpoint& to, const SocketOptions& o, std::uint16_t local_port) {
  const auto c = worker->connect({IpAddress::any_v4(), local_port}, to, o, clock());
  connect_error = c.error();
  if (!c) return nullptr;
  return sockets.emplace_back(std::make_unique<Socket>(*this, **c)).get();
}

Socket& Host::connect(const Host& to, std::uint16_t p, const SocketOptions& o, std::uint16_t local_port) {
  Socket* s = try_connect({to.address, p}, o, local_port);
  if (s == nullptr) throw std::runtime_error(std::string("connect: ") + name(connect_error));
  return *s;
}

void Host::accept_all(Listener& l) {
  while (Connection* c = worker->accept(l)) {
    Socket& s = *sockets.emplace_back(std::make_unique<Socket>(*this, *c));
    accepted.push_back(&s);
    if (on_accept) on_accept(s);
    s.kick();
  }
}

std::size_t Host::turn() {
  if (sim.now < stalled_until) return 0;
  const std::size_t work = worker->poll(clock());
  while (SocketBase* s = worker->next_event()) {
    s->edges = 0;
    if (s->kind == SocketBase::Kind::listener) continue;
    if (s->user != nullptr) static_cast<Socket*>(s->user)->kick();
  }
  if (accepting)
    for (Listener* l : listeners)
      if (!l->unwatched) accept_all(*l);
  worker->flush(clock());
  return work;
}

std::size_t Host::leaked_packets() {
  for (auto& s : sockets) s->connection = nullptr;
  worker.reset();
  return pool.capacity() - pool.available();
}

// --- Sim

Sim::Sim(std::uint64_t seed) : seed_(choose_seed(seed)), random(seed_), wire(random, now) {}

Host& Sim::add_host(const std::function<void(Options&)>& tune, std::size_t packets) {
  return *hosts.emplace_back(
      std::make_unique<Host>(*this, static_cast<std::uint8_t>(hosts.size() + 1), tune, packets));
}

SimSharedDevice& Sim::add_device(std::uint32_t queues, std::uint32_t slots) {
  const auto number = static_cast<std::uint8_t>(devices.size() + 1);
  return *devices.emplace_back(std::make_unique<SimSharedDevice>(wire, number, queues, slots, random()));
}

Host& Sim::add_process(SimSharedDevice& device) {
  return *hosts.emplace_back(std::make_unique<Host>(*this, device, kShared, next_process_++));
}

void Sim::step(Time limit) {
  bool busy = false;
  for (auto& h : hosts) {
    if (h->worker == nullptr) continue;
    busy = h->turn() > 0 || (h->worker->pending() && now >= h->stalled_until) || busy;
  }
  for (auto& act : actors) act();
  for (auto& d : devices) busy = d->busy() || busy;
  Time next = wire.next_arrival();
  for (auto& h : hosts)
    if (h->worker != nullptr) next = std::min(next, h->next_deadline());
  // Computing takes time too; and a deadline is a lower bound that may have passed.
  const Time soonest = now + microseconds(1);
  now = std::min(busy ? soonest : std::max(next, soonest), std::max(limit, soonest));
}

bool Sim::run_until(const std::function<bool()>& condition, Duration limit) {
  for (const Time end = now + limit; now < end;) {
    if (condition()) return true;
    step(end);
  }
  return condition();
}

void Sim::run_for(Duration d) {
  for (const Time end = now + d; now < end;) step(end);
}

}  // namespace mtcp::sim
