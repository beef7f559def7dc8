// What the two ends do: short connections, bulk transfer, messages on connections that stay.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "perf/micro/two_ends.hh"

namespace mtcp::perf {

// A connection for each 64 bytes there and back, as msg_server and msg_client; `concurrency` at a time.
class ShortConnections {
 public:
  ShortConnections(TwoEnds& ends, unsigned concurrency) : ends_(ends), concurrency_(concurrency) {}
  void ask(stack::Time t);    // the client's part of a turn
  void serve(stack::Time t);  // the server's
  [[nodiscard]] std::uint64_t done() const { return done_; }

 private:
  void serve_one(Connection& c, stack::Time t);
  void client_event(Connection& c, stack::Time t);

  TwoEnds& ends_;
  unsigned concurrency_;
  unsigned active_ = 0;
  std::uint64_t done_ = 0;
  std::array<std::byte, kMessage> buffer_{};
};

inline void ShortConnections::serve_one(Connection& c, stack::Time t) {
  const iovec v{buffer_.data(), buffer_.size()};
  const auto got = ends_.server.worker.receive(c, {&v, 1}, {}, t);
  if (!got && got.error() == stack::Errc::would_block) return;
  if (got && *got == kMessage) {
    if (!ends_.server.worker.send(c, {&v, 1}, false, t)) ends_.failed++;
  } else {
    ends_.failed++;
  }
  ends_.server.worker.close(c, t);
}

inline void ShortConnections::serve(stack::Time t) {
  ends_.server.worker.poll(t);
  while (SocketBase* s = ends_.server.worker.next_event()) {
    s->edges = 0;
    if (s->kind == SocketBase::Kind::connection) {
      serve_one(static_cast<Connection&>(*s), t);
      continue;
    }
    while (Connection* c = ends_.accept()) {
      if (ends_.server.worker.readiness(*c).readable) serve_one(*c, t);
    }
  }
  ends_.server.worker.flush(t);
}

inline void ShortConnections::client_event(Connection& c, stack::Time t) {
  const auto ready = ends_.client.worker.readiness(c);
  const iovec v{buffer_.data(), buffer_.size()};
  if (ready.error) {
    ends_.failed++;
  } else if (ready.readable) {
    for (;;) {
      const auto got = ends_.client.worker.receive(c, {&v, 1}, {}, t);
      if (!got && got.error() == stack::Errc::would_block) return;
      if (!got) ends_.failed++;
      if (!got || *got == 0) break;
    }
    done_++;
  } else if (ready.writable && c.bytes_acked == 0 && c.hot.snd_queued == 0) {
    if (ends_.client.worker.send(c, {&v, 1}, false, t)) return;
    ends_.failed++;
  } else {
    return;
  }
  ends_.client.worker.close(c, t);
  active_--;
}

inline void ShortConnections::ask(stack::Time t) {
  ends_.client.worker.poll(t);
  while (SocketBase* s = ends_.client.worker.next_event()) {
    s->edges = 0;
    client_event(static_cast<Connection&>(*s), t);
  }
  while (active_ < concurrency_) {
    if (ends_.connect(t) == nullptr) break;
    active_++;
  }
  ends_.client.worker.flush(t);
}

// One direction as fast as it goes: the client sends, the server reads.
class Bulk {
 public:
  Bulk(TwoEnds& ends, unsigned connections, std::size_t chunk)
      : ends_(ends), connections_(connections), chunk_(chunk) {}
  void open(stack::Time t);
  void allow(std::uint64_t bytes, stack::Time t);  // so many are to be sent from now on, in all
  void ask(stack::Time t);    // the client's part of a turn: writes what there is room for
  void serve(stack::Time t);  // the server's: reads all that there is
  [[nodiscard]] std::uint64_t received() const { return received_; }  // bytes

 private:
  void write(Connection& c, stack::Time t);

  TwoEnds& ends_;
  unsigned connections_;
  std::vector<std::byte> chunk_;
  std::vector<Connection*> senders_;
  std::uint64_t received_ = 0;
  std::uint64_t left_ = UINT64_MAX;  // bytes to write
};

inline void Bulk::open(stack::Time t) {
  for (unsigned i = 0; i < connections_; i++) senders_.push_back(ends_.connect(t));
}

inline void Bulk::allow(std::uint64_t bytes, stack::Time t) {
  left_ = bytes;
  for (Connection* c : senders_) write(*c, t);
}

inline void Bulk::write(Connection& c, stack::Time t) {
  while (left_ != 0) {
    const iovec v{chunk_.data(), static_cast<std::size_t>(std::min<std::uint64_t>(chunk_.size(), left_))};
    const auto n = ends_.client.worker.send(c, {&v, 1}, false, t);
    if (!n) return;
    left_ -= *n;
  }
}

inline void Bulk::serve(stack::Time t) {
  ends_.server.worker.poll(t);
  while (SocketBase* s = ends_.server.worker.next_event()) {
    s->edges = 0;
    if (s->kind == SocketBase::Kind::listener) {
      while (ends_.accept() != nullptr) {
      }
      continue;
    }
    const iovec v{chunk_.data(), chunk_.size()};
    for (;;) {
      const auto got = ends_.server.worker.receive(static_cast<Connection&>(*s), {&v, 1}, {}, t);
      if (!got || *got == 0) break;
      received_ += *got;
    }
  }
  ends_.server.worker.flush(t);
}

inline void Bulk::ask(stack::Time t) {
  ends_.client.worker.poll(t);
  while (SocketBase* s = ends_.client.worker.next_event()) {
    s->edges = 0;
    auto& c = static_cast<Connection&>(*s);
    ends_.client.worker.readiness(c).error ? static_cast<void>(ends_.failed++) : write(c, t);
  }
  ends_.client.worker.flush(t);
}

// Connections that stay: a request on one, its answer, and then it is the others' turn; at most `kAtOnce` at a time.
class KeptConnections {
 public:
  KeptConnections(TwoEnds& ends, unsigned connections, std::size_t request, std::size_t answer)
      : ends_(ends), connections_(connections), request_(request), answer_(answer) {}
  void open(stack::Time t);  // some of them; until all_open()
  [[nodiscard]] bool all_open() const { return missing_.size() == connections_; }
  void ask(stack::Time t);
  void serve(stack::Time t);
  [[nodiscard]] std::uint64_t done() const { return done_; }  // answers

 private:
  static constexpr std::size_t kAtOnce = 64;
  void client_event(Connection& c, stack::Time t);
  void answer(Connection& c, stack::Time t);
  std::size_t read_all(stack::Worker& worker, Connection& c, stack::Time t);

  TwoEnds& ends_;
  const unsigned connections_;
  unsigned begun_ = 0;
  std::vector<std::byte> request_, answer_, in_ = std::vector<std::byte>(65536);
  std::deque<Connection*> idle_;
  std::size_t asked_ = 0;  // and not answered
  std::unordered_map<Connection*, std::size_t> missing_;  // bytes of the answer
  std::uint64_t done_ = 0;
};

inline std::size_t KeptConnections::read_all(stack::Worker& worker, Connection& c, stack::Time t) {
  const iovec v{in_.data(), in_.size()};
  std::size_t n = 0;
  for (;;) {
    const auto got = worker.receive(c, {&v, 1}, {}, t);
    if (!got && got.error() != stack::Errc::would_block) ends_.failed++;
    if (!got || *got == 0) return n;
    n += *got;
  }
}

inline void KeptConnections::open(stack::Time t) {
  // The first one by itself: while the neighbour is asked for, few packets can wait.
  const std::size_t most = begun_ == 0 ? 1 : missing_.empty() ? 0 : kAtOnce;
  for (std::size_t n = 0; n < most && begun_ < connections_; n++, begun_++)
    if (ends_.connect(t) == nullptr) ends_.failed++;
  ends_.client.worker.flush(t);
}

inline void KeptConnections::client_event(Connection& c, stack::Time t) {
  const auto asked = missing_.find(&c);
  if (asked == missing_.end()) {  // it has just been established
    missing_.emplace(&c, 0);
    idle_.push_back(&c);
    return;
  }
  const std::size_t n = read_all(ends_.client.worker, c, t);
  if (n == 0) return;
  if (n > asked->second) ends_.failed++;
  asked->second -= n;
  if (asked->second != 0) return;
  idle_.push_back(&c);
  asked_--;
  done_++;
}

inline void KeptConnections::ask(stack::Time t) {
  ends_.client.worker.poll(t);
  while (SocketBase* s = ends_.client.worker.next_event()) {
    s->edges = 0;
    client_event(static_cast<Connection&>(*s), t);
  }
  const iovec v{request_.data(), request_.size()};
  for (; all_open() && asked_ < kAtOnce && !idle_.empty(); asked_++) {
    Connection* c = idle_.front();
    idle_.pop_front();
    missing_[c] = answer_.size();
    if (!ends_.client.worker.send(*c, {&v, 1}, false, t)) ends_.failed++;
  }
  ends_.client.worker.flush(t);
}

inline void KeptConnections::answer(Connection& c, stack::Time t) {
  if (read_all(ends_.server.worker, c, t) == 0) return;
  const iovec v{answer_.data(), answer_.size()};
  const auto sent = ends_.server.worker.send(c, {&v, 1}, false, t);
  if (!sent || *sent != answer_.size()) ends_.failed++;
}

inline void KeptConnections::serve(stack::Time t) {
  ends_.server.worker.poll(t);
  while (SocketBase* s = ends_.server.worker.next_event()) {
    s->edges = 0;
    if (s->kind == SocketBase::Kind::connection) {
      answer(static_cast<Connection&>(*s), t);
      continue;
    }
    while (Connection* c = ends_.accept()) answer(*c, t);
  }
  ends_.server.worker.flush(t);
}

}  // namespace mtcp::perf
