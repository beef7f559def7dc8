// What is remembered of the hosts that we have been connected with, as Linux's tcp_metrics: bounded, and found by a keyed hash,
// so that nobody can choose what is forgotten.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "stack/base/siphash.hh"
#include "stack/base/time.hh"
#include "stack/wire/address.hh"
#include "stack/wire/tcp_options.hh"

namespace mtcp::stack {

struct HostRecord {
  IpAddress local, remote;
  Time used{};  // the last time that something was noted; zero: free
  // RFC 7413 section 4.1.3: what the next SYN may carry.
  FastOpenCookie cookie;        // of length 0: none is known
  enum class Option : std::uint8_t { ordinary, experimental, none };
  Option other_option = Option::ordinary;  // without a cookie: by which the next is asked for; none: by the ordinary, as two were in vain
  std::uint16_t mss = 0;        // as the peer announced it beside the cookie
  std::uint8_t syn_losses = 0;  // SYNs in a row with a Fast Open option that had to be sent again without
  Time last_syn_loss{};
  // metrics.cc
  Duration rtt{};               // zero: not known
  std::uint32_t ssthresh = 0;   // bytes; 0: not known
  std::uint16_t reordering = 0;  // packets; 0: no more than usual
  Time metrics_at{};            // when a connection has noted these; zero: none has
};

class Destinations {
 public:
  explicit Destinations(SipKey key) : key_(key) {}
  // Null if nothing is known.
  [[nodiscard]] const HostRecord* find(const IpAddress& local, const IpAddress& remote) const;
  // What find() last found, if it is of these two: connections come in rows, and a short one should cost little more for it.
  [[nodiscard]] const HostRecord* latest(const IpAddress& local, const IpAddress& remote) const {
    return latest_ != nullptr && latest_->remote == remote && latest_->local == local ? latest_ : nullptr;
  }
  // To note something: what there is, or a new one in place of the oldest of its bucket. Null: no memory.
  [[nodiscard]] HostRecord* note(const IpAddress& local, const IpAddress& remote, Time now);

  static constexpr std::size_t kBuckets = 1024, kWays = 4;

 private:
  [[nodiscard]] HostRecord* bucket(const IpAddress& local, const IpAddress& remote) const;
  SipKey key_;
  mutable HostRecord* latest_ = nullptr;
  std::unique_ptr<HostRecord[]> entries_;  // made when the first is noted
};

}  // namespace mtcp::stack
