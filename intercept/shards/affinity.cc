// Which stack a listener is on: that of the thread that waits for its connections, so that these are there as well.
//
// Where there is no device, each thread that listens has a stack of its own (listen()). On a device a stack is worth its slot only
// where others have the same listeners, since steering sends new connections to all of them alike: so a second stack is for a
// program that has several listeners of one endpoint (SO_REUSEPORT), one for each of its threads. Such a listener comes to
// the thread that makes it or puts it into an epoll set: haproxy and Envoy make all of them in their first thread.
#include <algorithm>

#include "intercept/process.hh"

namespace mtcp::intercept {
namespace {

// Nobody has it so far: no call, no set, and no connection waits for it.
bool is_unused(const Socket& s) {
  if (s.holds != 0 || s.callers != 0 || !s.watchers.empty()) return false;
  return s.listener == nullptr || (s.listener->accept_count == 0 && s.listener->syn_count == 0);
}

}  // namespace

// A device of which each process opens one for itself has one wire.
unsigned Process::most_stacks() const { return options.device.is_private() ? 1 : options.stacks; }

bool Process::has_twin(const Socket& listener) const {
  return std::any_of(listeners.begin(), listeners.end(), [&](const Socket* other) {
    return other != &listener && other->reuse_port && other->local == listener.local;
  });
}

void Process::bring_to_thread(Guard& guard, Socket& s) {
  Shard* own = shards.of_thread();
  if (own == s.shard || !is_unused(s)) return;
  // A program with one thread, which may fork yet: nothing is started for it. What comes to this thread next is to be where this is.
  if (own == nullptr && (!has_twin(s) || s.shard->threads->load(std::memory_order_relaxed) == 0)) return shards.assign(*s.shard);
  if (!started()) start_for_listeners();
  if (ensure_started() != 0) return;
  own = &guard.claim_shard(most_stacks());
  if (own == s.shard) return;
  if (ensure_started(*own) == 0) {
    move_listener(s, *own);
  } else {
    shards.assign(first());  // no slot, or no memory: it goes on without
  }
  guard.be_about(*s.shard);
}

void Process::bring_to_thread(Guard& guard, int fd) {
  const auto listener = [&] {
    Socket* s = guard.covered(fd) != nullptr ? files.socket(fd) : nullptr;
    return s != nullptr && may_come_to_thread(*s) && shards.of_thread() != s->shard ? s : nullptr;
  };
  if (listener() == nullptr) return;
  guard.widen();
  if (Socket* s = listener(); s != nullptr) bring_to_thread(guard, *s);
}

// Its twins take what comes meanwhile.
void Process::move_listener(Socket& s, Shard& to) {
  const bool on_stack = s.listener != nullptr;
  if (on_stack) end_listening(s, false);
  change_shard(s, to);
  if (on_stack) (void)start_listener(s);
}

}  // namespace mtcp::intercept
