// The bytes of a relayed connection, both ways. Every function that says bool: false if the relay is gone.
//
// One byte from the users that has been dealt with is left in the pump's end. If that is closed so, they get
// ECONNRESET, which is what they are to see of a reset by the peer, and of a sudden end of this process (unix(7)
// does not say it, but Linux has always done so). The first is put there when the pair is made. It must be of a short
// message, because the whole message counts against the users' SO_SNDBUF for so long, and they must be able to write
// even with the smallest; after a long one there is none until the next short one.
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>

#include "intercept/call.hh"
#include "intercept/process.hh"
#include "intercept/relay/relay.hh"

namespace mtcp::intercept {
namespace {

constexpr std::size_t kAtOnce = 65536;  // bytes in one step
constexpr int kSteps = 16;              // of one connection before others have their turn
constexpr std::size_t kPieces = 64;     // packets that one step fills
constexpr std::size_t kShort = 128;     // bytes that have come together of which the last is left

}  // namespace

void Relay::pump_event(Relayed& r, std::uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) r.readable = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) r.users_ending = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0 && r.wants_out) want_out(r, false);
  note_ready(r);
}

void Relay::want_out(Relayed& r, bool on) {
  r.wants_out = on;
  epoll_event e{.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (on ? EPOLLOUT : 0U), .data = {.u64 = r.serial}};
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
  stack::Worker& worker = r.socket->shard->instance->worker();
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
      drop(r);  // reset, and so it looks to the users
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
      if (r.users_deaf) {  // are they gone altogether?
        r.readable = true;
        (void)look_at_users(r);
      }
    }
    // All users gone: what is left unread makes the connection's close a reset, as in Linux.
    if (r.users_deaf && !from_users(r)) return false;
    const iovec part{buffer_.get(), taken};
    (void)worker.receive(c, {&part, 1}, {.discard = true}, now());
  }
  return true;
}

bool Relay::from_users(Relayed& r) {
  stack::Worker& worker = r.socket->shard->instance->worker();
  stack::Connection& c = *r.socket->connection;
  if (r.users_ended && r.readable) return end_of_users(r);
  for (int step = 0; r.readable && !r.users_ended; ++step) {
    if (step == kSteps) {
      note_ready(r);
      return true;
    }
    int queued = 0;
    (void)process_.kernel.ioctl(r.pump, FIONREAD, &queued);
    const auto fresh = static_cast<std::size_t>(std::max(queued - (r.byte_left ? 1 : 0), 0));
    if (fresh == 0) {
      if (r.users_ending) return end_of_users(r);
      r.readable = false;
      return true;
    }
    std::array<iovec, kPieces + 1> pieces;  // the first is for the byte that was left
    const auto lent = worker.reserve(c, std::min(kAtOnce, fresh), std::span(pieces).subspan(1), now());
    if (!lent) {
      if (lent.error() == stack::Errc::would_block) return true;  // until the peer has acknowledged something
      // Shut down for writing by whoever had it before, or reset, which the other direction will show.
      (void)process_.kernel.shutdown(r.pump, SHUT_RD);
      r.users_ended = true;
      r.readable = false;
      return true;
    }
    const std::size_t taken = take_from_users(r, fresh, {pieces.data(), *lent + 1});
    worker.commit(c, taken, false, now());
    if (taken == fresh && !r.users_ending) {  // of what came since then the pump's end tells anew
      r.readable = false;
      return true;
    }
  }
  return true;
}

// Reads into `pieces`, of which the first is free, what there is of `fresh` bytes. How many they have got.
std::size_t Relay::take_from_users(Relayed& r, std::size_t fresh, std::span<iovec> pieces) {
  std::array<std::byte, kShort> sink;
  const std::size_t old = r.byte_left ? 1 : 0;
  std::size_t room = 0;
  for (iovec& v : pieces.subspan(1)) {
    v.iov_len = std::min(v.iov_len, fresh - room);  // what comes in the meantime is for the next time
    room += v.iov_len;
  }
  pieces[0] = {sink.data(), old};
  const bool leave = fresh <= kShort && room == fresh;
  msghdr m{};
  m.msg_iov = pieces.data();
  m.msg_iovlen = pieces.size();
  const ssize_t got = process_.kernel.recvmsg(r.pump, &m, MSG_DONTWAIT | (leave ? MSG_PEEK : 0));
  if (got < static_cast<ssize_t>(old)) return 0;
  r.byte_left = leave;
  if (leave) (void)process_.kernel.read(r.pump, sink.data(), static_cast<std::size_t>(got) - 1);
  return static_cast<std::size_t>(got) - old;
}

// They will send nothing more: gone, or only half closed?
bool Relay::end_of_users(Relayed& r) {
  r.readable = false;
  r.users_ended = true;
  const int events = look_at_users(r);
  if ((events & POLLERR) != 0) {  // all of them have closed it, with something left unread
    stack::Connection& c = *r.socket->connection;
    r.socket->connection = nullptr;
    c.user = nullptr;
    r.socket->shard->instance->worker().abort(c, now());
    drop(r);
    return false;
  }
  if ((events & POLLHUP) != 0) {
    std::byte left;
    if (r.byte_left) (void)process_.kernel.read(r.pump, &left, 1);  // it has ended well both ways
    drop(r);
    return false;
  }
  r.socket->shard->instance->worker().shutdown(*r.socket->connection, false, true, now());
  return true;
}

int Relay::look_at_users(Relayed& r) {
  pollfd p{r.pump, POLLIN | POLLRDHUP, 0};
  const timespec zero{};
  (void)process_.kernel.ppoll(&p, 1, &zero, nullptr);
  r.users_ending |= (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  return p.revents;
}

}  // namespace mtcp::intercept
