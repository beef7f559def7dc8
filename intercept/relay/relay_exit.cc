// The end of a process whose connections others still use.
#include <poll.h>
#include <signal.h>

#include "intercept/call.hh"
#include "intercept/process.hh"
#include "intercept/relay/relay.hh"

namespace mtcp::intercept {
namespace {

// A child that has not touched a connection for so long after the fork is taken not to want it.
constexpr stack::Duration kUnusedPatience = stack::seconds(1);
constexpr stack::Duration kAtMost = stack::milliseconds(50);  // of one sleep

void sleep_until_due(Process& process) {
  const pollfd relays{process.relay.watch_fd(), POLLIN, 0};
  process.sleep_on_stacks(now() + kAtMost, {&relays, 1});
}

}  // namespace

// In the kernel the others would go on without this process; here its stack carries their bytes. So it stays,
// as nothing else than the stack, until they are done.
void Relay::finish() {
  if (relayed_.empty()) return;
  // The application will not handle a signal any more: one that asks to end ends the process at once.
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
    if (::signal(number, SIG_DFL) == SIG_IGN) ::signal(number, SIG_IGN);
  }
  const stack::Time unused_until = now() + kUnusedPatience;
  while (pumping() || (!relayed_.empty() && now() < unused_until)) {
    process_.for_each_stack([](Instance& i) { (void)i.turn(now()); });
    serve();
    sleep_until_due(process_);
  }
  drop_all();
}

void Relay::drop_all() {
  while (!relayed_.empty()) drop(*relayed_.begin()->second);
}

}  // namespace mtcp::intercept
