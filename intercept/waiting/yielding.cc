#include "intercept/waiting/yielding.hh"

#include <algorithm>

namespace mtcp::intercept {
namespace {

// Yields in a row that find nothing, before a pause.
constexpr unsigned kMostInVain = 16;
// As many is one that is longer: what came for a sleeper would have been handled by then, and nobody who serves keeps a CPU for so
// long without that something comes.
constexpr stack::Duration kLong = stack::milliseconds(1);
// A pause is twice as long as the last one, until so many yields have paid since.
constexpr stack::Duration kShortestPause = stack::milliseconds(20), kLongestPause = stack::milliseconds(1280);
constexpr unsigned kRegained = 64;

}  // namespace

bool Yielding::due(stack::Time now) {
  if (!judged_) judge(now);
  if (!progress_ || now < next_) return false;
  progress_ = false;
  return true;
}

void Yielding::yielded(stack::Time before, stack::Time now) {
  in_vain_ += now - before > kLong ? kMostInVain : 1;  // unless it turns out to have found something
  judged_ = false;
}

void Yielding::judge(stack::Time now) {
  judged_ = true;
  if (progress_) {
    in_vain_ = 0;
    if (++paid_ == kRegained) pause_ = {};
    return;
  }
  if (in_vain_ >= kMostInVain) pause(now);
}

void Yielding::pause(stack::Time now) {
  pause_ = std::clamp<stack::Duration>(2 * pause_, kShortestPause, kLongestPause);
  next_ = now + pause_;
  in_vain_ = paid_ = 0;
}

}  // namespace mtcp::intercept
