// One direction of a bad wire: what becomes of each frame, by chance and by the clock. Knows no socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <queue>
#include <random>
#include <string>
#include <vector>

namespace bad_wire {

using Nanoseconds = std::int64_t;
using Frame = std::vector<std::uint8_t>;

// Probabilities between 0 and 1, for each frame.
struct Options {
  double loss = 0;           // by itself
  double burst = 0;          // Gilbert's model: a burst of losses begins ...
  double burst_end = 0.25;   // ... and ends (so 4 frames on average)
  double reorder = 0;        // sent ahead: half of the delay is spared
  double late = 0;           // held back by half of the delay, or a millisecond if there is none
  double duplicate = 0;
  double corrupt = 0;        // one bit behind the Ethernet header is turned over
  Nanoseconds delay = 0;     // one way
  Nanoseconds jitter = 0;    // and up to this much more; frames stay in order
  double rate = 0;           // bits per second; 0: no limit
  std::size_t queue = 1000;  // frames that wait for the rate
  std::size_t mark = 0;      // so many wait: frames of ECN-capable senders are marked CE; 0: never

  // "loss=0.01", "delay=10ms", "rate=100M"; false if there is no such thing.
  bool set(const std::string& key, const std::string& value);
};

struct Counts {
  std::uint64_t frames = 0, bytes = 0, lost = 0, dropped = 0, reordered = 0, late = 0, duplicated = 0, corrupted = 0,
                marked = 0;
};

class Link {
 public:
  Link(const Options& options, std::uint64_t seed) : options_(options), random_(seed) {}

  // A frame has come. What is neither IPv4 nor IPv6 (ARP) comes through whole and in time.
  void take(Frame frame, Nanoseconds now);
  // When the next one leaves; the largest number if none is on the way.
  [[nodiscard]] Nanoseconds next() const;
  // The frame that is to leave now, or an empty one.
  Frame give(Nanoseconds now);
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
  struct Waiting {
    Nanoseconds due;
    std::uint64_t number;
    Frame frame;
    bool operator<(const Waiting& other) const {
      return due != other.due ? due > other.due : number > other.number;
    }
  };
  bool chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(random_) < p; }
  bool is_lost();
  bool enqueue(Frame& frame, Nanoseconds now, Nanoseconds& leaves);
  void corrupt(Frame& frame);
  void put(Frame frame, Nanoseconds due);

  const Options options_;
  std::mt19937_64 random_;
  bool in_burst_ = false;
  std::deque<Nanoseconds> leaving_;  // of what still waits for the rate
  Nanoseconds last_due_ = 0;         // of what stays in order
  std::priority_queue<Waiting> waiting_;
  std::uint64_t number_ = 0;
  Counts counts_;
};

}  // namespace bad_wire
