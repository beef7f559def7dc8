#include "intercept/relay/relay.hh"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "intercept/call.hh"
#include "intercept/process.hh"
#include "intercept/relay/relay_name.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/sockets/address.hh"
#include "intercept/support/log.hh"
#include "intercept/background/service_thread.hh"

namespace mtcp::intercept {
namespace {

constexpr int kEventsAtOnce = 64;
constexpr std::size_t kRequestsAtOnce = 64;
constexpr std::uint64_t kNobodys = UINT64_MAX;  // a serial that no child was born after
constexpr std::uint64_t kChild = 1ULL << 63;    // of what an event says: a child's id, not a serial

bool has_connection(Process& process) {
  if (!process.any_stack([](Instance& i) { return i.worker().connections() != 0; })) return false;
  for (int fd = 0; fd < process.files.end(); ++fd) {
    const Socket* s = process.files.socket(fd);
    if (s != nullptr && s->state == Socket::State::stream) return true;
  }
  return false;
}

}  // namespace

// --- fork

void Relay::before_fork() {
  process_.shards.align_serials();
  if (!has_connection(process_)) return;
  if (const int error = internal_pair(process_, SOCK_SEQPACKET, fork_ends_); error != 0)
    log(LogLevel::warning, "a child will not be able to use this process's connections: error %d", -error);
}

void Relay::after_fork_in_parent() {
  if (fork_ends_[0] < 0) return;
  close_internal(process_, fork_ends_[1]);
  // What is already relayed the child has as a kernel descriptor; what is kept for others it has not got at
  // all.
  std::unordered_set<std::uint64_t> settled;
  for (const auto& [serial, r] : relayed_) settled.insert(serial);
  process_.shards.for_each([&](const Shard& shard) {
    for (const Socket* s : shard.closed_in_use) settled.insert(s->serial);
  });
  add_child(std::exchange(fork_ends_[0], -1), process_.first().serials * Shard::kMost, std::move(settled));
}

int Relay::after_fork_in_child() {
  close_internal(process_, fork_ends_[0]);
  for (Offer& o : offers_) withdraw(o);
  offers_.clear();
  for (auto& [id, child] : children_) close_internal(process_, child.channel);
  for (auto& [serial, r] : relayed_) {
    close_internal(process_, r->pump);
    close_internal(process_, r->user);
    r->watch_hook.unlink();
    r->socket->shard->free_socket(*r->socket);
  }
  children_.clear();
  relayed_.clear();
  pumps_.store(0, std::memory_order_relaxed);
  int watch = watch_.exchange(-1, std::memory_order_relaxed);
  close_internal(process_, watch);
  return std::exchange(fork_ends_[1], -1);
}

// --- the watched descriptors

int Relay::watch(int fd, std::uint64_t which, std::uint32_t events) {
  int set = watch_fd();
  if (set < 0) {
    set = process_.kernel.epoll_create1(EPOLL_CLOEXEC);
    if (set < 0) return set;
    set = process_.keep_high(set);
    watch_.store(set, std::memory_order_relaxed);
    if (process_.first().service_thread != nullptr) process_.first().service_thread->wake();  // it sleeps without this
  }
  epoll_event e{.events = events, .data = {.u64 = which}};
  return process_.kernel.epoll_ctl(set, EPOLL_CTL_ADD, fd, &e);
}

// To close it is not enough: a child that has just been forked has a copy, so that the set would go on to tell of it.
void Relay::close_watched(int& fd) {
  if (fd >= 0) (void)process_.kernel.epoll_ctl(watch_fd(), EPOLL_CTL_DEL, fd, nullptr);
  close_internal(process_, fd);
}

void Relay::serve() {
  std::array<epoll_event, kEventsAtOnce> events;
  const timespec zero{};
  const int n = watch_fd() < 0
                    ? 0
                    : process_.kernel.epoll_pwait2(watch_fd(), events.data(), kEventsAtOnce, &zero, nullptr);
  const std::span<const epoll_event> came(events.data(), static_cast<std::size_t>(std::max(n, 0)));
  for (const epoll_event& e : came) {
    if ((e.data.u64 & kChild) != 0) {
      if (children_.contains(e.data.u64)) serve_child(e.data.u64);
    } else if (const auto r = relayed_.find(e.data.u64); r != relayed_.end()) {
      pump_event(*r->second, e.events);
    }
  }
  run_ready();
}

// --- children

void Relay::add_child(int channel, std::uint64_t born, std::unordered_set<std::uint64_t> settled) {
  const std::uint64_t id = kChild | next_child_++;
  children_.emplace(id, Child{channel, born, std::move(settled)});
  if (const int error = watch(channel, id, EPOLLIN); error != 0) {
    log(LogLevel::warning, "a child can't use this process's connections: error %d", -error);
    end_child(id);
  }
}

void Relay::end_child(std::uint64_t id) {
  auto node = children_.extract(id);
  close_watched(node.mapped().channel);
  std::unordered_set<std::uint64_t> all;
  for (const auto& [serial, r] : relayed_) all.insert(serial);
  for (const std::uint64_t serial : all) {
    if (const auto r = relayed_.find(serial); r != relayed_.end()) drop_if_unheld(*r->second);
  }
}

void Relay::serve_child(std::uint64_t id) {
  std::array<Request, kRequestsAtOnce> requests;
  const int channel = children_.find(id)->second.channel;
  for (;;) {
    int passed = -1;
    const ssize_t got = receive_message(process_.kernel, channel, requests.data(), sizeof requests, passed);
    if (got == -EAGAIN) return;
    if (got <= 0) return end_child(id);
    const auto count = static_cast<std::size_t>(got) / sizeof(Request);
    Child& child = children_.find(id)->second;
    if (passed >= 0) {
      // A child of the child has what the child has now.
      add_child(process_.keep_high(passed), child.born, child.settled);
      continue;  // `child` may have moved
    }
    for (std::size_t i = 0; i < count; ++i) answer(child, requests[i]);
  }
}

void Relay::answer(Child& child, const Request& request) {
  using Kind = Request::Kind;
  Descriptor reply{.serial = request.serial};
  int user = -1;
  if (request.kind == Kind::option)
    set_option(request.serial, request.level, request.name, request.value, std::min<std::size_t>(request.size, sizeof request.value));
  if (request.kind == Kind::use) reply.error = std::min(user = descriptor_for(request), 0);
  if (request.kind == Kind::take) reply.error = give(request);
  // It fails only if the child is gone, which its channel's end will tell.
  if (request.kind != Kind::closed) (void)send_message(process_.kernel, child.channel, &reply, sizeof reply, user);
  if (request.kind != Kind::closed && request.kind != Kind::use) return;
  child.settled.insert(request.serial);
  if (const auto r = relayed_.find(request.serial); r != relayed_.end()) drop_if_unheld(*r->second);
}

// The users' end of the pair for what a child asks for, or -errno.
int Relay::descriptor_for(const Request& request) {
  auto r = relayed_.find(request.serial);
  if (r == relayed_.end()) {
    Socket* s = find(request);
    if (s == nullptr || is_opening(*s->connection)) return -ENOTCONN;
    if (const int error = relay_for_child(*s); error != 0) return error;
    r = relayed_.find(request.serial);
  } else if (r->second->pump < 0) {
    if (const int error = open_pair(*r->second); error != 0) return error;
  }
  ++r->second->users;
  return r->second->user >= 0 ? r->second->user : -ENOTCONN;
}

Socket* Relay::find(const Request& request) {
  const auto is_it = [&](Socket* s) {
    return s != nullptr && s->serial == request.serial && s->state == Socket::State::stream;
  };
  if (request.fd >= 0 && request.fd < process_.files.size()) {
    if (Socket* s = process_.files.socket(request.fd); is_it(s)) return s;
  }
  for (int fd = 0; fd < process_.files.end(); ++fd) {
    if (Socket* s = process_.files.socket(fd); is_it(s)) return s;
  }
  Socket* found = nullptr;
  process_.shards.for_each([&](const Shard& shard) {
    for (Socket* s : shard.closed_in_use) {
      if (is_it(s)) found = s;
    }
  });
  return found;
}

bool Relay::held(std::uint64_t serial) const {
  if (offered(serial)) return true;
  for (const auto& [id, child] : children_) {
    if (serial < child.born && !child.settled.contains(serial)) return true;
  }
  return false;
}

// --- connections

const Socket* Relay::relayed_socket(std::uint64_t serial) const {
  const auto r = relayed_.find(serial);
  return r == relayed_.end() ? nullptr : r->second->socket;
}

void Relay::set_option(std::uint64_t serial, int level, int name, const void* v, std::size_t n) {
  const auto r = relayed_.find(serial);
  if (r == relayed_.end()) return;
  // Whoever set it has been told whether it is right.
  (void)mtcp::intercept::set_option(process_, *r->second->socket, level, name, v, static_cast<socklen_t>(n));
}

// The connection leaves `s` and belongs to a socket that no descriptor refers to.
Relayed& Relay::take(Socket& s) {
  auto& r = *(relayed_[s.serial] = std::make_unique<Relayed>());
  r.relay = this;
  r.serial = s.serial;
  r.socket = s.shard->make_socket();
  Socket& hidden = *r.socket;
  hidden.v6 = s.v6;
  hidden.nonblocking = s.nonblocking;
  hidden.write_shut = s.write_shut;
  hidden.options = s.options;
  hidden.serial = s.serial;
  hidden.descriptors = 1;
  attach(hidden, *s.connection);
  hidden.watchers.push_back(r);
  s.connection = nullptr;
  return r;
}

void Relay::keep(Socket& s) { (void)take(s); }

int Relay::relay_for_child(Socket& s) {
  Relayed& r = take(s);
  if (const int error = open_pair(r); error != 0) {
    attach(s, *r.socket->connection);
    s.shard->free_socket(*r.socket);
    relayed_.erase(s.serial);
    log(LogLevel::warning, "no relay for a connection that another process uses: error %d", -error);
    return error;
  }
  const int error = become_relayed(process_, s, r.user);
  drop_if_unheld(r);
  return error;
}

// Without its name a relay works; who has only the other end learns no addresses then.
void Relay::name_pump(int pump, const Socket& s) {
  RelayName name;
  std::memcpy(name.tag, RelayName::kTag, sizeof name.tag);
  socklen_t size = sizeof name.local;
  const stack::FlowKey& key = s.connection->key;
  (void)write_address({key.local, key.local_port}, s.v6, reinterpret_cast<sockaddr*>(&name.local), &size);
  size = sizeof name.remote;
  (void)write_address({key.remote, key.remote_port}, s.v6, reinterpret_cast<sockaddr*>(&name.remote), &size);
  name.unique[0] = static_cast<std::uint32_t>(process_.pid);
  name.unique[1] = static_cast<std::uint32_t>(s.serial);
  name.unique[2] = static_cast<std::uint32_t>(s.serial >> 32);
  (void)process_.kernel.bind(pump, reinterpret_cast<const sockaddr*>(&name), sizeof name);
}

int Relay::make_pair(const Socket& s, int (&ends)[2]) {
  if (const int error = internal_pair(process_, SOCK_STREAM, ends); error != 0) return error;
  name_pump(ends[0], s);
  const char first_left = 0;  // see relay_pump.cc
  if (const ssize_t error = process_.kernel.write(ends[1], &first_left, 1); error != 1) {
    close_internal(process_, ends[0]);
    close_internal(process_, ends[1]);
    return error < 0 ? static_cast<int>(error) : -ENOBUFS;
  }
  // The pump's own end stays non-blocking; theirs is as the application had it.
  (void)process_.kernel.fcntl(ends[1], F_SETFL, O_RDWR | (s.nonblocking ? O_NONBLOCK : 0));
  if (s.write_shut) (void)process_.kernel.shutdown(ends[0], SHUT_RD);  // already before it was shared
  return 0;
}

int Relay::open_pair(Relayed& r) {
  int ends[2];
  if (Offer* o = offer_of(r.serial); o != nullptr && o->pump >= 0) {
    ends[0] = std::exchange(o->pump, -1);
    ends[1] = std::exchange(o->user, -1);
  } else if (const int error = make_pair(*r.socket, ends); error != 0) {
    return error;
  }
  r.pump = ends[0];
  r.user = ends[1];
  if (const int error = watch(r.pump, r.serial, EPOLLIN | EPOLLRDHUP | EPOLLET); error != 0) {
    close_internal(process_, r.pump);
    close_internal(process_, r.user);
    return error;
  }
  r.users_ended = r.socket->write_shut;
  // The bytes come in the pieces in which the users wrote them, and they can't reach TCP_NODELAY from where
  // they are.
  r.socket->options.nodelay = true;
  r.socket->shard->instance->worker().set_options(*r.socket->connection, r.socket->options, now());
  pumps_.store(pumps_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  r.socket->shard->instance->stats().add(stack::Counter::relayed_connections);
  note_ready(r);
  return 0;
}

void Relay::drop_if_unheld(Relayed& r) {
  if (held(r.serial)) return;
  if (r.pump >= 0) return close_internal(process_, r.user);  // from now on its end is theirs
  drop(r);
}

void Relay::drop(Relayed& r) {
  if (r.pump >= 0) pumps_.store(pumps_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  close_watched(r.pump);
  close_internal(process_, r.user);
  r.watch_hook.unlink();
  r.socket->serial = kNobodys;
  process_.drop_descriptor(*r.socket);
  const std::uint64_t serial = r.serial;
  relayed_.erase(serial);
}

}  // namespace mtcp::intercept
