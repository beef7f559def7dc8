// TCP Fast Open's client (RFC 7413): data with the SYN.
#include <algorithm>

#include "stack/tcp/private.hh"

namespace mtcp::stack {

namespace {

constexpr std::uint32_t kDefaultMss = 536;
constexpr Duration kLossPause = seconds(60);  // doubled for each SYN that was lost in a row

}  // namespace

bool ActiveOpens::is_fast_open_ready(const IpAddress& local, const IpAddress& remote, const SocketOptions& o, Time now) const {
  const std::uint32_t bits = options_.tcp.fast_open;
  if ((bits & kFastOpenClient) == 0) return false;
  const HostRecord* known = destinations_.find(local, remote);
  // Section 4.1.3.1: what drops such SYNs is left alone for a while.
  if (known != nullptr && known->syn_losses > 1 &&
      now < known->last_syn_loss + kLossPause * (1 << std::min<int>(known->syn_losses, 10)))
    return false;
  if ((bits & kFastOpenClientNoCookie) != 0 || o.fast_open_no_cookie) return true;
  return known != nullptr && known->cookie.length != 0;
}

// Section 4.2.1: the first SYN, with data and the cookie, or asking for one.
void ActiveOpens::send_fast_open_syn(Connection& c, FastOpenStart& start, Time now) {
  const std::uint32_t bits = options_.tcp.fast_open;
  const HostRecord* known = destinations_.find(c.key.local, c.key.remote);
  const bool ready = is_fast_open_ready(c.key.local, c.key.remote, c.options, now);
  const bool pauses = known != nullptr && !ready && known->cookie.length != 0;
  if ((bits & kFastOpenClient) == 0 || pauses) return tcp_.send_syn(c, now);
  c.fast_open = true;
  if (!ready) c.fast_open_failure = FastOpenFailure::no_cookie;
  const bool without = (bits & kFastOpenClientNoCookie) != 0 || c.options.fast_open_no_cookie;
  Tcp::Header hd = tcp_.syn_header(c, false, now);
  FastOpenCookie cookie;
  if (known != nullptr) {
    cookie = known->cookie;
    if (cookie.length == 0) cookie.experimental = known->other_option == HostRecord::Option::experimental;
  }
  c.experimental_fast_open = cookie.experimental;
  if (!without) hd.fast_open = &cookie;
  std::span<const std::byte> payload;
  if (ready) {
    const std::uint32_t mss = known != nullptr && known->mss != 0 ? known->mss : kDefaultMss;
    const std::uint32_t largest = std::min<std::uint32_t>(mss, Tcp::local_mss(*c.path, c.key, c.options));
    const std::uint32_t room = largest - static_cast<std::uint32_t>(kMaxTcpOptions);
    payload = tcp_.sender.queue_syn_data(c, start.data, room, now);
    start.taken = payload.size();
  }
  if (!payload.empty()) stats_.add(Counter::fast_opens_sent);
  tcp_.send_bare(hd, *c.path, TxPriority::control, now, payload);
}

// The SYN-ACK has come and the connection is in ESTABLISHED, with SND.UNA behind its SYN.
void ActiveOpens::finish_fast_open(Connection& c, Segment& s, Time now) {
  auto& h = c.hot;
  FastOpenCookie cookie;
  const bool given = read_fast_open(s, cookie) && cookie.length != 0;
  // Who answers a request without a cookie may know the other option only; after that, none (as Linux).
  const bool in_vain = !given && !h.retransmitting_syn && c.tx.queue.empty() && !c.options.fast_open_no_cookie;
  if (given || h.retransmitting_syn || in_vain) {
    if (HostRecord* d = destinations_.note(c.key.local, c.key.remote, now); d != nullptr) {
      if (given) {
        d->cookie = cookie;
        d->mss = c.peer_mss;
        d->syn_losses = 0;
      } else if (in_vain) {
        if (d->cookie.length == 0 && d->other_option != HostRecord::Option::none)
          d->other_option = c.experimental_fast_open ? HostRecord::Option::none : HostRecord::Option::experimental;
      } else {
        if (d->syn_losses != UINT8_MAX) ++d->syn_losses;
        d->last_syn_loss = now;
      }
    }
  }
  if (c.tx.queue.empty()) return;
  if (after(s.ack, h.snd_una)) {
    c.syn_data_acked = true;
    // The window of a SYN is not scaled (RFC 7323 section 2.2).
    const std::uint32_t window = h.snd_wnd, largest = c.tx.max_window;
    (void)tcp_.sender.on_ack(c, s, now);
    h.snd_wnd = window;
    c.tx.max_window = largest;
  }
  if (c.tx.queue.empty()) return;
  c.fast_open_failure = h.retransmitting_syn ? FastOpenFailure::syn_retransmitted : FastOpenFailure::not_acknowledged;
  tcp_.sender.rewind_syn_data(c);
}

}  // namespace mtcp::stack
