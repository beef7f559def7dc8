#include "tests/bad_wire/link.hh"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace bad_wire {
namespace {

constexpr std::size_t kEthernet = 14;

std::uint16_t type_of(const Frame& f) {
  return f.size() < kEthernet ? std::uint16_t{0} : static_cast<std::uint16_t>(f[12] << 8 | f[13]);
}

bool is_ip(const Frame& f) { return type_of(f) == 0x0800 || type_of(f) == 0x86dd; }

// RFC 3168 section 5, and RFC 1624 for IPv4's checksum. False if the sender is not ECN-capable.
bool mark_congestion(Frame& f) {
  if (type_of(f) == 0x0800 && f.size() >= kEthernet + 20) {
    std::uint8_t& tos = f[kEthernet + 1];
    if ((tos & 3) == 0) return false;
    const std::uint8_t old = tos;
    tos = static_cast<std::uint8_t>(tos | 3);
    std::uint8_t* at = &f[kEthernet + 10];
    std::uint32_t sum = static_cast<std::uint16_t>(~(at[0] << 8 | at[1]));
    sum += static_cast<std::uint16_t>(~std::uint32_t{old}) + std::uint32_t{tos};
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    at[0] = static_cast<std::uint8_t>(sum >> 8);
    at[1] = static_cast<std::uint8_t>(sum);
    return true;
  }
  if (type_of(f) != 0x86dd || f.size() < kEthernet + 40 || (f[kEthernet + 1] & 0x30) == 0) return false;
  f[kEthernet + 1] = static_cast<std::uint8_t>(f[kEthernet + 1] | 0x30);
  return true;
}

// A number with a unit behind it. False if there is something else.
bool parse(const std::string& text, double& value) {
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || value < 0) return false;
  const std::string unit = end;
  const struct {
    const char* name;
    double factor;
  } units[] = {{"", 1},      {"ns", 1},   {"us", 1e3}, {"ms", 1e6}, {"s", 1e9},
               {"k", 1e3},   {"M", 1e6},  {"G", 1e9},  {"%", 0.01}};
  for (const auto& u : units) {
    if (unit != u.name) continue;
    value *= u.factor;
    return true;
  }
  return false;
}

}  // namespace

bool Options::set(const std::string& key, const std::string& text) {
  double value = 0;
  if (!parse(text, value)) return false;
  const struct {
    const char* name;
    double* at;
  } chances[] = {{"loss", &loss},           {"burst", &burst},   {"burst_end", &burst_end}, {"reorder", &reorder},
                 {"late", &late},           {"duplicate", &duplicate}, {"corrupt", &corrupt}};
  for (const auto& c : chances) {
    if (key != c.name) continue;
    *c.at = value;
    return value <= 1;
  }
  if (key == "delay") return delay = static_cast<Nanoseconds>(value), true;
  if (key == "jitter") return jitter = static_cast<Nanoseconds>(value), true;
  if (key == "rate") return rate = value, true;
  if (key == "queue") return queue = static_cast<std::size_t>(value), queue > 0;
  if (key == "mark") return mark = static_cast<std::size_t>(value), true;
  return false;
}

bool Link::is_lost() {
  in_burst_ = in_burst_ ? !chance(options_.burst_end) : chance(options_.burst);
  return in_burst_ || chance(options_.loss);
}

// Behind what waits for the rate. False if there is no room.
bool Link::enqueue(Frame& frame, Nanoseconds now, Nanoseconds& leaves) {
  leaves = now;
  if (options_.rate <= 0) return true;
  while (!leaving_.empty() && leaving_.front() <= now) leaving_.pop_front();
  if (leaving_.size() >= options_.queue) return false;
  if (options_.mark > 0 && leaving_.size() >= options_.mark && mark_congestion(frame)) ++counts_.marked;
  const double takes = static_cast<double>(frame.size()) * 8e9 / options_.rate;
  leaves = (leaving_.empty() ? now : leaving_.back()) + static_cast<Nanoseconds>(takes);
  leaving_.push_back(leaves);
  return true;
}

void Link::corrupt(Frame& frame) {
  if (frame.size() <= kEthernet) return;
  const std::size_t at = std::uniform_int_distribution<std::size_t>(kEthernet, frame.size() - 1)(random_);
  frame[at] = static_cast<std::uint8_t>(frame[at] ^ 1U << (random_() & 7));
  ++counts_.corrupted;
}

void Link::put(Frame frame, Nanoseconds due) { waiting_.push({due, number_++, std::move(frame)}); }

void Link::take(Frame frame, Nanoseconds now) {
  if (!is_ip(frame)) return put(std::move(frame), std::max(now + options_.delay, last_due_));
  if (is_lost()) {
    ++counts_.lost;
    return;
  }
  Nanoseconds leaves = 0;
  if (!enqueue(frame, now, leaves)) {
    ++counts_.dropped;
    return;
  }
  if (chance(options_.corrupt)) corrupt(frame);
  if (chance(options_.duplicate)) {
    ++counts_.duplicated;
    put(frame, leaves + options_.delay);
  }
  if (chance(options_.reorder)) {
    ++counts_.reordered;
    return put(std::move(frame), leaves + options_.delay / 2);
  }
  Nanoseconds due = leaves + options_.delay;
  if (options_.jitter > 0) due += std::uniform_int_distribution<Nanoseconds>(0, options_.jitter)(random_);
  last_due_ = due = std::max(due, last_due_);
  if (chance(options_.late)) {
    ++counts_.late;
    due += std::max<Nanoseconds>(options_.delay / 2, 1'000'000);
  }
  put(std::move(frame), due);
}

Nanoseconds Link::next() const {
  return waiting_.empty() ? std::numeric_limits<Nanoseconds>::max() : waiting_.top().due;
}

Frame Link::give(Nanoseconds now) {
  if (next() > now) return {};
  Frame frame = std::move(const_cast<Waiting&>(waiting_.top()).frame);
  waiting_.pop();
  ++counts_.frames;
  counts_.bytes += frame.size();
  return frame;
}

}  // namespace bad_wire
