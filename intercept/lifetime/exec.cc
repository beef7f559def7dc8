// exec and posix_spawn: which descriptors the new program has, and what is behind them.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

#include "intercept/call.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {

// A program that is being started, with the connections that it is offered.
struct Start {
  std::vector<std::uint64_t> offered;  // by serial
};

namespace {

// Whether a descriptor is to be open in the new program: as a bound or fresh kernel socket, or as the end of a relay. A
// connection is not: it belongs to this process's stack.
bool survives_exec(const Process& process, const Socket& s) {
  if (s.state == Socket::State::stream) return process.relay.offered(s.serial);
  return s.state == Socket::State::undecided || s.state == Socket::State::listening || s.state == Socket::State::relayed;
}

bool is_connection(const Socket* s) {
  return s != nullptr && (s->state == Socket::State::stream || s->state == Socket::State::foreign);
}

// Which connections the next program is to have. Each costs a relay, so a server's many, from which FD_CLOEXEC is missing by
// neglect, stay at home; a program's few may well be what the next one is started for.
class Meant {
 public:
  explicit Meant(Process& process) {
    constexpr int kFew = 32;
    int plain = 0;
    for (int fd = 0; fd < process.files.end(); ++fd)
      plain += is_connection(process.files.socket(fd)) && !process.files[fd].close_on_exec ? 1 : 0;
    few_ = plain <= kFew;
    if (few_ || process.told_of_exec) return;
    process.told_of_exec = true;
    log(LogLevel::warning, "%d connections without FD_CLOEXEC: a program that is started gets none of them by number", plain);
  }
  [[nodiscard]] bool is(const File& file, int fd) const {
    return !file.close_on_exec && (few_ || fd <= 2 || file.meant_for_exec);
  }

 private:
  bool few_ = false;
};

// A connection of a parent that this process means the next program to have gets its relay now. One of its own ends.
void claim_for_exec(Process& process) {
  const Meant meant(process);
  for (int fd = 0; fd < process.files.end(); ++fd) {
    Socket* s = process.files.socket(fd);
    if (!is_connection(s) || !meant.is(process.files[fd], fd)) continue;
    claim_if_foreign(process, *s);
    if (s->state != Socket::State::stream || process.told_of_exec) continue;
    log(LogLevel::warning, "descriptor %d: exec can't take a connection of this process's own stack along", fd);
    process.told_of_exec = true;
  }
}

void set_close_on_exec(Process& process, bool as_application_wants) {
  for (int fd = 0; fd < process.files.end(); ++fd) {
    const Socket* s = process.files.socket(fd);
    if (s == nullptr || process.files[fd].close_on_exec || !survives_exec(process, *s)) continue;
    (void)process.kernel.fcntl(fd, F_SETFD, as_application_wants ? 0 : FD_CLOEXEC);
  }
}

// Follows the file actions of posix_spawn, as the child will, to the connections that it is given on purpose.
class Actions {
 public:
  explicit Actions(Process& process) : process_(process) {}

  void follow(const SpawnAction& action) {
    switch (action.kind) {
      case SpawnAction::Kind::dup2:
        put(action.to, at(action.fd));
        break;
      case SpawnAction::Kind::close:
        put(action.fd, nullptr);
        break;
      case SpawnAction::Kind::close_from:
        std::erase_if(changed_, [&](const Entry& e) { return e.fd >= action.fd; });
        closed_from_ = std::min(closed_from_, action.fd);
        break;
    }
  }

  [[nodiscard]] std::vector<Socket*> connections() {
    std::vector<Socket*> out;
    const Meant meant(process_);
    const auto add = [&](Socket* s) {
      if (is_connection(s) && std::find(out.begin(), out.end(), s) == out.end()) out.push_back(s);
    };
    for (int fd = 0; fd < std::min(process_.files.end(), closed_from_); ++fd) {
      if (find(fd) == nullptr && is_connection(process_.files.socket(fd)) && meant.is(process_.files[fd], fd))
        add(process_.files.socket(fd));
    }
    for (const Entry& e : changed_) add(e.socket);
    return out;
  }

 private:
  struct Entry {
    int fd;
    Socket* socket;  // null: not one of ours, or closed
  };

  Entry* find(int fd) {
    const auto e = std::find_if(changed_.begin(), changed_.end(), [&](const Entry& i) { return i.fd == fd; });
    return e == changed_.end() ? nullptr : &*e;
  }
  Socket* at(int fd) {
    if (const Entry* e = find(fd); e != nullptr) return e->socket;
    return fd >= closed_from_ ? nullptr : process_.files.socket(fd);
  }
  void put(int fd, Socket* s) {
    if (Entry* e = find(fd); e != nullptr) {
      e->socket = s;
    } else {
      changed_.push_back({fd, s});
    }
  }

  Process& process_;
  std::vector<Entry> changed_;  // what the actions have put under these numbers
  int closed_from_ = INT_MAX;   // of the others
};

}  // namespace

// In the child of a vfork this is the parent's memory: only the kernel's flags, which are the child's own,
// change.
void Process::before_exec() {
  const Guard guard(*this, Guard::Everything{});
  if (::getpid() == pid) {
    claim_for_exec(*this);
    ++starts;
  }
  set_close_on_exec(*this, true);
}

void Process::after_failed_exec() {
  const Guard guard(*this, Guard::Everything{});
  if (::getpid() == pid && --starts > 0) return;  // another thread is about to start a program
  set_close_on_exec(*this, false);
}

std::size_t Process::describe_listeners(char* text, std::size_t room) {
  const Guard guard(*this, Guard::Everything{});
  std::size_t length = 0;
  for (int fd = 0; fd < files.end(); ++fd) {
    Socket* s = files.socket(fd);
    if (s == nullptr || s->state != Socket::State::listening || files[fd].close_on_exec) continue;
    (void)replay_options(*this, *s);  // the next program reads them there
    const int n = std::snprintf(text + length, room - length, "%d:%u%s,", fd, s->listen_options.backlog, s->nonblocking ? "" : "b");
    if (n < 0 || static_cast<std::size_t>(n) >= room - length) {
      log(LogLevel::warning, "descriptor %d and those above will not be known as listeners of the stack after exec", fd);
      text[length] = 0;
      break;
    }
    length += static_cast<std::size_t>(n);
  }
  if (length == 0) return 0;
  // number_of_predecessor() reads it. Without it the next program's connections that nobody accepts are not for this one's workers.
  const int n = std::snprintf(text + length, room - length, "p%016llx", static_cast<unsigned long long>(program));
  if (n > 0 && static_cast<std::size_t>(n) < room - length) return length + static_cast<std::size_t>(n);
  text[length] = 0;
  return length;
}

Start* Process::before_spawn(const SpawnAction* actions, std::size_t n, bool for_long) {
  const Guard guard(*this, Guard::Everything{});
  auto* start = new Start;
  Actions child(*this);
  for (const SpawnAction& action : std::span(actions, n)) child.follow(action);
  for (Socket* s : child.connections()) {
    claim_if_foreign(*this, *s);
    if (s->state == Socket::State::relayed) relay.scatter(*s);
    if (s->state != Socket::State::stream || is_opening(*s->connection)) continue;
    if (for_long) {
      (void)relay.relay(*s);  // it logs why it fails
    } else if (relay.offer(*s)) {
      start->offered.push_back(s->serial);
    }
  }
  relay.run_ready();
  ++starts;
  set_close_on_exec(*this, true);
  return start;
}

void Process::after_spawn(Start* start, bool made) {
  const Guard guard(*this, Guard::Everything{});
  for (const std::uint64_t serial : start->offered) relay.settle(serial, made);
  delete start;
  relay.run_ready();
  // What has become a relay just now has its flags to get, if another thread is about to start a program.
  set_close_on_exec(*this, --starts > 0);
}

}  // namespace mtcp::intercept
