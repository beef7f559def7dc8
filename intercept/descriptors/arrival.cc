#include "intercept/descriptors/arrival.hh"

#include "intercept/call.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {

stack::Connection* await_arrival(Instance& instance, const stack::FlowKey& key, stack::Duration at_most) {
  stack::Worker& worker = instance.worker();
  for (const stack::Time until = now() + at_most;;) {
    (void)instance.turn(now());
    if (stack::Connection* c = worker.take_expected(key); c != nullptr) return c;
    if (worker.expects(key) && now() < until) continue;
    worker.stop_expecting(key, now());
    return nullptr;
  }
}

void take_arrived(Socket& s, stack::Connection* c) {
  s.connection = nullptr;
  if (c == nullptr) {
    log(LogLevel::warning, "descriptor %d: its connection was lost between two stacks", s.fd);
    s.state = Socket::State::dead;
    s.error = stack::Errc::connection_reset;
    return;
  }
  attach(s, *c);
  s.turns_at_again = 0;  // those of another stack
  s.shard->instance->worker().set_options(*c, s.options, now());
}

void await_bytes(Socket& s, std::size_t n) {
  // Ends by itself with what the other stack has sent: all of that lies in one message ring.
  constexpr int kMostTurns = 256;
  Instance& instance = *s.shard->instance;
  for (int i = 0; i < kMostTurns && instance.worker().readable_bytes(*s.connection) < n; ++i) (void)instance.turn(now());
}

}  // namespace mtcp::intercept
