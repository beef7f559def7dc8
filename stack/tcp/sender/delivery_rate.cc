#include "stack/tcp/sender/delivery_rate.hh"

#include <algorithm>
#include <new>

namespace mtcp::stack {
namespace {

constexpr std::uint32_t kFirstCapacity = 64;

}  // namespace

bool DeliveryRate::grow() {
  const std::uint32_t capacity = ring_ == nullptr ? kFirstCapacity : 2 * (mask_ + 1);
  std::unique_ptr<Sent[]> ring(new (std::nothrow) Sent[capacity]);
  if (ring == nullptr) return false;
  for (std::uint32_t i = head_; i != tail_; ++i) ring[i & (capacity - 1)] = at(i);
  ring_ = std::move(ring);
  mask_ = capacity - 1;
  return true;
}

// The packet that `begin` lies in: it may have been cut since.
DeliveryRate::Sent* DeliveryRate::find(Seq begin) {
  std::uint32_t low = head_, count = tail_ - head_;
  while (count != 0) {
    const std::uint32_t half = count / 2;
    if (at_or_before(at(low + half).end, begin)) {
      low += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return low != tail_ && at_or_before(at(low).begin, begin) ? &at(low) : nullptr;
}

void DeliveryRate::stamp(Sent& s, Time at) {
  s.at = at;
  s.first_at = first_at_;
  s.delivered_at = delivered_at_;
  s.delivered = delivered_;
  s.app_limited = app_limited_until_ != 0;
}

void DeliveryRate::on_sent(Seq begin, Seq end, Time at_time, bool alone) {
  if (alone) first_at_ = delivered_at_ = at_time;
  if (head_ != tail_ && before(begin, at(tail_ - 1).end)) {
    Sent* s = find(begin);
    if (s == nullptr || s->counted) return;
    stamp(*s, at_time);
    return;
  }
  if ((ring_ == nullptr || tail_ - head_ > mask_) && !grow()) return;  // without memory: a sample less
  Sent& s = at(tail_++);
  s = {};
  s.begin = begin;
  s.end = end;
  stamp(s, at_time);
}

// What is sent last says most.
void DeliveryRate::take(Sent& s) {
  if (s.counted) return;
  s.counted = true;
  if (taken_ && (s.at < taken_at_ || (s.at == taken_at_ && !after(s.end, taken_end_)))) return;
  taken_ = true;
  taken_at_ = first_at_ = s.at;
  taken_end_ = s.end;
  send_interval_ = s.at - s.first_at;
  prior_delivered_at_ = s.delivered_at;
  sample_.prior_delivered = s.delivered;
  sample_.app_limited = s.app_limited;
}

void DeliveryRate::on_sacked(Seq begin) {
  if (Sent* s = find(begin)) take(*s);
}

void DeliveryRate::on_acked(Seq ack) {
  for (; head_ != tail_ && at_or_before(at(head_).end, ack); ++head_) take(at(head_));
}

void DeliveryRate::finish(std::uint32_t delivered, std::uint32_t lost, Duration least_rtt, Time now) {
  delivered_ += delivered;
  lost_ += lost;
  if (app_limited_until_ != 0 && delivered_ > app_limited_until_) app_limited_until_ = 0;
  if (delivered != 0) delivered_at_ = now;
  RateSample& s = sample_;
  s.fresh = true;
  s.newly_delivered = delivered;
  s.newly_lost = lost;
  s.valid = taken_;
  if (!taken_) return;
  taken_ = false;
  s.delivered = delivered_ - s.prior_delivered;
  // The longer of the two: neither a burst of ours nor one of ACKs makes a path fast.
  s.interval = std::max(send_interval_, now - prior_delivered_at_);
  if (s.interval <= Duration::zero() || (least_rtt != Duration::max() && s.interval < least_rtt)) {
    s.valid = false;
    return;
  }
  const auto rate = static_cast<std::uint64_t>(s.rate());
  if (s.app_limited && rate < latest_rate_) return;
  latest_rate_ = rate;
  latest_app_limited_ = s.app_limited;
}

}  // namespace mtcp::stack
