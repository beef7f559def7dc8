// The bytes of a relayed connection, both ways. Every function that says bool: false if the relay is gone.
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "intercept/call.hh"
#include "intercept/process.hh"
#include "intercept/relay.hh"

namespace mtcp::intercept {
namespace {

constexpr std::size_t kAtOnce = 65536;  // bytes in one step
constexpr int kSteps = 16;              // of one connection before others have their turn
constexpr std::size_t kPieces = 64;     // packets that one step fills

}  // namespace

void Relay::pump_event(Relayed& r, std::uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) r.readable = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0 && r.wants_out) want_out(r, false);
  note_ready(r);
}

void Relay::want_out(Relayed& r, bool on) {
  r.wants_out = on;
  epoll_event e{.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (on ? EPOLLOUT : 0U), .data = {.fd = r.pump}};
  (void)process_.kernel.epoll_ctl(watch_fd(), EPOLL_CTL_MOD, r.pump, &e);
}

void Relay::pump_ready() {
  // Those that become ready meanwhile wait for the next time.
  stack::IntrusiveList<Relayed, &Relayed::ready_hook> now_ready;
  now_ready.splice_back(ready_);
  while (Relayed* r = now_ready.pop_front()) {
    if (r->pump >= 0) pump(*r);
  }
}

void Relay::pump(Relayed& r) {
  if (!from_users(r)) return;
  (void)to_users(r);
}

bool Relay::to_users(Relayed& r) {
  stack::Worker& worker = process_.instance->worker();
  stack::Connection& c = *r.socket->connection;
  if (buffer_ == nullptr) buffer_ = std::make_unique<std::byte[]>(kAtOnce);
  const iovec whole{buffer_.get(), kAtOnce};
  for (int step = 0; !r.peer_ended && !r.wants_out; ++step) {
    if (step == kSteps) {
      note_ready(r);
      return true;
    }
    const auto got = worker.receive(c, {&whole, 1}, {.peek = true}, now());
    if (!got) {
      if (got.error() == stack::Errc::would_block) return true;
      drop(r);  // reset: the users see the end of the stream, and EPIPE
      return false;
    }
    if (*got == 0) {
      r.peer_ended = true;
      (void)process_.kernel.shutdown(r.pump, SHUT_WR);
      return true;
    }
    std::size_t taken = *got;
    if (!r.users_deaf) {
      iovec v{buffer_.get(), *got};
      msghdr m{};
      m.msg_iov = &v;
      m.msg_iovlen = 1;
      const ssize_t sent = process_.kernel.sendmsg(r.pump, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent == -EAGAIN) {
        want_out(r, true);
        return true;
      }
      r.users_deaf = sent < 0;
      if (sent >= 0) taken = static_cast<std::size_t>(sent);
      if (r.users_deaf) r.readable = true;  // are they gone altogether?
    }
    // All users gone: what is left unread makes the connection's close a reset, as in Linux.
    if (r.users_deaf && !from_users(r)) return false;
    const iovec part{buffer_.get(), taken};
    (void)worker.receive(c, {&part, 1}, {.discard = true}, now());
  }
  return true;
}

bool Relay::from_users(Relayed& r) {
  stack::Worker& worker = process_.instance->worker();
  stack::Connection& c = *r.socket->connection;
  if (r.users_ended && r.readable) return end_of_users(r);
  for (int step = 0; r.readable && !r.users_ended; ++step) {
    if (step == kSteps) {
      note_ready(r);
      return true;
    }
    std::array<iovec, kPieces> pieces;
    const auto lent = worker.reserve(c, kAtOnce, pieces, now());
    if (!lent) {
      if (lent.error() == stack::Errc::would_block) return true;  // until the peer has acknowledged something
      // Shut down for writing by whoever had it before, or reset, which the other direction will show.
      (void)process_.kernel.shutdown(r.pump, SHUT_RD);
      r.users_ended = true;
      r.readable = false;
      return true;
    }
    const ssize_t got = process_.kernel.preadv(r.pump, pieces.data(), static_cast<int>(*lent), -1);
    worker.commit(c, static_cast<std::size_t>(std::max<ssize_t>(got, 0)), false, now());
    if (got == -EAGAIN) {
      r.readable = false;
      return true;
    }
    if (got < 0) {  // all of them have closed it, with something left unread
      r.socket->connection = nullptr;
      c.user = nullptr;
      worker.abort(c, now());
      drop(r);
      return false;
    }
    if (got == 0) {
      r.users_ended = true;
      return end_of_users(r);
    }
  }
  return true;
}

// They will send nothing more: gone, or only half closed?
bool Relay::end_of_users(Relayed& r) {
  r.readable = false;
  pollfd p{r.pump, POLLIN, 0};
  const timespec zero{};
  (void)process_.kernel.ppoll(&p, 1, &zero, nullptr);
  if ((p.revents & POLLHUP) != 0) {
    drop(r);
    return false;
  }
  process_.instance->worker().shutdown(*r.socket->connection, false, true, now());
  return true;
}

}  // namespace mtcp::intercept
