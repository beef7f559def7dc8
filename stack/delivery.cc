#include "stack/delivery.hh"

#include <algorithm>

#include "stack/port/attachment.hh"

namespace mtcp::stack {
namespace {

constexpr Duration kPatience = milliseconds(500);  // without progress
constexpr Duration kReaderPatience = seconds(4);   // a window probe or two (RFC 9293 3.8.6.1)
// Sent again so often without an answer, the peer has had time to answer all but the last.
constexpr std::uint8_t kTries = 3;

// What the peers have not acknowledged yet, and who has not got our FIN.
struct Undelivered {
  std::uint64_t amount = 0;
  const Steering* steering = nullptr;
  bool reachable = true;      // the link is up
  Time reader_heard{};        // the last word of a peer whose window is closed: it lives, and its program reads slowly
  bool may_answer = false;  // a peer that has not had its chance: timeouts begin at up to a second (RFC 6298), and double
};

void add(Undelivered& out, const ConnectionInfo& info) {
  const bool closing = info.state == State::fin_wait_1 || info.state == State::closing || info.state == State::last_ack;
  // The application has closed all that it had: this one waits to be handed over to another stack.
  const bool leaves = (info.state == State::established || info.state == State::close_wait) && out.steering != nullptr &&
                      out.steering->others_listen({info.key.local, info.key.local_port});
  out.amount += info.tx_queued + (closing || leaves ? 1U : 0U);
  if (!out.reachable) return;
  const bool is_full = info.tx_unsent > 0 && info.snd_wnd < info.flight + info.mss;
  if (is_full) out.reader_heard = std::max(out.reader_heard, info.last_received);
  if (!is_full && (closing || info.tx_queued != 0) && info.retries < kTries) out.may_answer = true;
}

}  // namespace

Delivery::Delivery(const Worker& worker, const Attachment& device, Duration at_most, Time now)
    : worker_(worker), device_(device), patience_(std::min<Duration>(at_most, kPatience)), end_(now + at_most), until_(now + patience_) {}

bool Delivery::is_over(Time now) {
  Undelivered left{.steering = device_.steering, .reachable = device_.port == nullptr || device_.port->link_up()};
  worker_.for_each([](void* out, const ConnectionInfo& info) { add(*static_cast<Undelivered*>(out), info); }, &left);
  if (left.amount == 0 || now >= end_) return true;
  if (left.amount < least_ || left.may_answer) until_ = now + patience_;
  least_ = std::min(least_, left.amount);
  until_ = std::min(std::max(until_, left.reader_heard + kReaderPatience), end_);
  return now >= until_;
}

}  // namespace mtcp::stack
