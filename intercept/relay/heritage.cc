#include "intercept/relay/heritage.hh"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "intercept/process.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {
namespace {

constexpr std::size_t kRequestsAtOnce = 64;
// How long an owner may take: it answers within a millisecond unless it is stopped or the machine is
// overloaded.
constexpr stack::Duration kOwnerPatience = stack::seconds(20);

// Waits for the owner. False: it has taken too long.
bool wait_for_owner(Process& process, int channel, short events, stack::Time until) {
  pollfd p{channel, events, 0};
  const auto left = until - now();
  if (left <= stack::Duration::zero()) return false;
  const timespec timeout = to_timespec(left);
  (void)process.kernel.ppoll(&p, 1, &timeout, nullptr);
  return true;
}

int send_to_owner(Process& process, int channel, const Request* requests, std::size_t count,
                  stack::Time until) {
  for (;;) {
    const ssize_t sent = send_message(process.kernel, channel, requests, count * sizeof *requests);
    if (sent >= 0) return 0;
    if (sent != -EAGAIN) return static_cast<int>(sent);
    if (!wait_for_owner(process, channel, POLLOUT, until)) return -ETIMEDOUT;
  }
}

}  // namespace

void Heritage::before_fork() {
  fork_ends_.assign(channels_.size() * 2, -1);
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    int ends[2];
    if (channels_[i] < 0 || internal_pair(process_, SOCK_SEQPACKET, ends) != 0) continue;
    fork_ends_[2 * i] = ends[0];
    fork_ends_[2 * i + 1] = ends[1];
  }
}

void Heritage::after_fork_in_parent() {
  tell_closed();  // before the owner hears of a child that has what this process has
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    close_internal(process_, fork_ends_[2 * i + 1]);
    if (fork_ends_[2 * i] < 0) continue;
    const Request forked{.kind = Request::Kind::forked};
    for (const stack::Time until = now() + kOwnerPatience;;) {
      const ssize_t sent =
          send_message(process_.kernel, channels_[i], &forked, sizeof forked, fork_ends_[2 * i]);
      if (sent != -EAGAIN || !wait_for_owner(process_, channels_[i], POLLOUT, until)) break;
    }
    close_internal(process_, fork_ends_[2 * i]);
  }
}

std::int16_t Heritage::after_fork_in_child(int to_parent) {
  closed_.clear();
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    close_internal(process_, channels_[i]);
    close_internal(process_, fork_ends_[2 * i]);
    channels_[i] = fork_ends_[2 * i + 1];
  }
  if (to_parent < 0) return -1;
  channels_.push_back(to_parent);
  return static_cast<std::int16_t>(channels_.size() - 1);
}

// The owner's answer: 0 or -errno; `passed` is the descriptor that came along, or -1.
int Heritage::ask(int channel, const Request& request, int& passed) {
  passed = -1;
  const stack::Time until = now() + kOwnerPatience;
  if (const int error = send_to_owner(process_, channel, &request, 1, until); error != 0) return error;
  for (;;) {
    Descriptor answer;
    const ssize_t got = receive_message(process_.kernel, channel, &answer, sizeof answer, passed);
    if (got == -EAGAIN) {
      if (!wait_for_owner(process_, channel, POLLIN, until)) return -ETIMEDOUT;
      continue;
    }
    if (got < 0) return static_cast<int>(got);
    if (got == 0) return -ECONNRESET;  // the owner is gone
    if (answer.serial == request.serial) return answer.error;
    if (passed >= 0) process_.kernel.close(passed);  // the answer to a question that was given up
  }
}

int Heritage::claim(Socket& s) {
  tell_closed();
  int error = -ENOTCONN, user = -1;
  if (s.channel >= 0 && channels_[static_cast<std::size_t>(s.channel)] >= 0) {
    error = ask(channels_[static_cast<std::size_t>(s.channel)], {.fd = s.fd, .serial = s.serial}, user);
  }
  if (user >= 0) {
    error = become_relayed(process_, s, user);
    process_.kernel.close(user);
    return error;
  }
  if (error == 0) error = -EMFILE;  // it was sent, and there was no room for it here
  log(LogLevel::warning, "descriptor %d: its owner gives no access to the connection: error %d", s.fd, -error);
  s.state = Socket::State::dead;
  s.error = error == -ECONNRESET ? stack::Errc::connection_reset : stack::Errc::ok;
  return -ENOTCONN;
}

void Heritage::tell_option(const Socket& s, int level, int name, const void* v, std::size_t n) {
  if (s.channel < 0 || n > Request::kOptionRoom) return;
  tell_closed();
  const int channel = channels_[static_cast<std::size_t>(s.channel)];
  Request request{.kind = Request::Kind::option, .fd = s.fd, .serial = s.serial, .level = level, .name = name,
                  .size = static_cast<std::uint32_t>(n)};
  std::memcpy(request.value, v, n);
  int passed = -1;
  if (ask(channel, request, passed) == -ETIMEDOUT)
    log(LogLevel::warning, "the owner of a connection does not listen to its options");
}

void Heritage::closed(const Socket& s) {
  if (s.channel < 0) return;
  if (closed_channel_ != s.channel || closed_.size() == kRequestsAtOnce) tell_closed();
  closed_channel_ = s.channel;
  closed_.push_back({.kind = Request::Kind::closed, .fd = s.fd, .serial = s.serial});
}

void Heritage::tell_closed() {
  if (closed_.empty()) return;
  int& channel = channels_[static_cast<std::size_t>(closed_channel_)];
  if (channel >= 0) {
    const int error =
        send_to_owner(process_, channel, closed_.data(), closed_.size(), now() + kOwnerPatience);
    // The owner learns it from the channel's end, then.
    if (error == -ETIMEDOUT) log(LogLevel::warning, "the owner of closed connections does not listen");
  }
  closed_.clear();
}

}  // namespace mtcp::intercept
