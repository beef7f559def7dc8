// Connections that a program gets from posix_spawn: libc makes the child and nothing of it is seen. So while it is being
// made the numbers of such a connection lead to the users' end of a pair, in the kernel's table only: here the
// connection goes on as before. If the program has come to life, the pair becomes the connection's relay.
#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "intercept/process.hh"
#include "intercept/relay/relay.hh"
#include "intercept/relay/relayed.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {

Relay::Offer* Relay::offer_of(std::uint64_t serial) {
  const auto o = std::find_if(offers_.begin(), offers_.end(), [&](const Offer& i) { return i.serial == serial; });
  return o == offers_.end() ? nullptr : &*o;
}

bool Relay::offered(std::uint64_t serial) const {
  return std::any_of(offers_.begin(), offers_.end(), [&](const Offer& o) { return o.serial == serial; });
}

bool Relay::offer(Socket& s) {
  if (Offer* o = offer_of(s.serial); o != nullptr) {
    ++o->starts;
    return true;
  }
  int ends[2];
  int error = make_pair(s, ends);
  int behind = error == 0 ? process_.kernel.fcntl(s.fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (error == 0 && (behind < 0 || behind >= process_.files.size())) {
    error = behind < 0 ? behind : -EMFILE;
    if (behind >= 0) process_.kernel.close(behind);
    close_internal(process_, ends[0]);
    close_internal(process_, ends[1]);
  }
  if (error != 0) {
    log(LogLevel::warning, "no relay for a connection that is passed to another program: error %d", -error);
    return false;
  }
  offers_.push_back({.serial = s.serial, .pump = ends[0], .user = ends[1], .behind = process_.keep_high(behind), .starts = 1});
  (void)put_behind(process_, s, ends[1]);
  s.kernel_dirty = true;  // if it is closed meanwhile, its number is no spare socket
  return true;
}

void Relay::settle(std::uint64_t serial, bool made) {
  Offer* o = offer_of(serial);
  if (made && o->pump >= 0) {
    if (Socket* s = find({.serial = serial}); s != nullptr) {
      (void)relay(*s);
    } else if (const auto r = relayed_.find(serial); r != relayed_.end()) {
      (void)open_pair(*r->second);  // closed here in the meantime
      r->second->scattered = true;
    }
  }
  if (--o->starts > 0) return;
  withdraw(*o);
  std::erase_if(offers_, [&](const Offer& i) { return i.serial == serial; });
  if (const auto r = relayed_.find(serial); r != relayed_.end()) drop_if_unheld(*r->second);
}

// The numbers lead to what was behind them before, unless a relay has come of it.
void Relay::withdraw(Offer& o) {
  if (Socket* s = o.pump >= 0 ? find({.serial = o.serial}) : nullptr; s != nullptr) (void)put_behind(process_, *s, o.behind);
  close_internal(process_, o.pump);
  close_internal(process_, o.user);
  close_internal(process_, o.behind);
}

}  // namespace mtcp::intercept
