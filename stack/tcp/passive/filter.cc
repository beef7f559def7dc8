#include "stack/tcp/passive/filter.hh"

#include <algorithm>
#include <cstring>
#include <new>

#include "stack/tcp/private.hh"

namespace mtcp::stack {

// A virtual scheduling algorithm (ITU-T I.371, GCRA): one time for each source says all.
bool SourceRates::take(std::uint32_t rule, std::uint32_t rate, const IpAddress& source, Time now) {
  if (sources_ == nullptr) sources_.reset(new (std::nothrow) Table);
  if (sources_ == nullptr) return true;  // no memory: nobody is kept out by that
  std::uint64_t half[2];
  std::memcpy(half, source.bytes.data(), sizeof half);
  if (!source.is_v4()) half[1] = 0;
  const std::uint64_t tag = siphash_words<1, 3>(key_, half[0], half[1], std::uint64_t{rule}) | 1;
  Set& set = sources_->sets[(tag >> 1) % kSets];
  auto found = std::ranges::find(set, tag, &Source::tag);
  if (found == set.end()) {
    found = std::ranges::min_element(set, {}, &Source::used_until);
    *found = {.tag = tag, .used_until = now};
  }
  const Duration each = std::chrono::nanoseconds(seconds(1)) / rate;
  const Time until = std::max(found->used_until, now) + each;
  if (until > now + each * rate) return false;
  found->used_until = until;
  return true;
}

const FilterRule* Filter::find(const IpAddress& source, std::uint16_t local_port) const {
  const auto found = std::ranges::find_if(rules_, [&](const FilterRule& r) {
    return local_port >= r.port_first && local_port <= r.port_last && r.source.contains(source);
  });
  return found == rules_.end() ? nullptr : &*found;
}

// What comes from this machine is not asked. `opens`: a SYN for a listener, which counts; else it is about to be refused.
bool PassiveOpens::filter_out(const Segment& s, bool opens, Time now) {
  if (tcp_.network.is_local(s.key.remote)) return false;
  const FilterRule* rule = filter_.find(s.key.remote, s.key.local_port);
  if (rule == nullptr) return false;
  switch (rule->action) {
    case FilterRule::Action::drop:
      stats_.add(Counter::filter_dropped);
      return true;
    case FilterRule::Action::reset:
      stats_.add(Counter::filter_reset);
      tcp_.send_reset_for(s, now);
      return true;
    case FilterRule::Action::accept:
      break;
  }
  if (!opens || filter_.take(*rule, s.key.remote, now)) return false;
  stats_.add(Counter::filter_over_rate);
  return true;
}

void PassiveOpens::refuse(const Segment& s, Time now) {
  if (filter_.empty() || !filter_out(s, false, now)) tcp_.send_reset_for(s, now);
}

}  // namespace mtcp::stack
