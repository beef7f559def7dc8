#include "stack/tcp/active/destinations.hh"

#include <algorithm>
#include <cstring>
#include <new>

namespace mtcp::stack {
HostRecord* Destinations::bucket(const IpAddress& local, const IpAddress& remote) const {
  std::uint64_t w[4];
  static_assert(sizeof local.bytes == 16);
  std::memcpy(w, &local.bytes, 16);
  std::memcpy(w + 2, &remote.bytes, 16);
  return &entries_[siphash_words<1, 3>(key_, w[0], w[1], w[2], w[3]) % kBuckets * kWays];
}

const HostRecord* Destinations::find(const IpAddress& local, const IpAddress& remote) const {
  if (entries_ == nullptr) return nullptr;
  HostRecord* first = bucket(local, remote);
  auto* found = std::find_if(first, first + kWays, [&](const HostRecord& d) {
    return d.used != Time{} && d.remote == remote && d.local == local;
  });
  return found != first + kWays ? latest_ = found : nullptr;
}

HostRecord* Destinations::note(const IpAddress& local, const IpAddress& remote, Time now) {
  if (entries_ == nullptr) entries_.reset(new (std::nothrow) HostRecord[kBuckets * kWays]);
  if (entries_ == nullptr) return nullptr;
  auto* d = const_cast<HostRecord*>(find(local, remote));
  if (d == nullptr) {
    HostRecord* first = bucket(local, remote);
    d = std::min_element(first, first + kWays, [](const HostRecord& a, const HostRecord& b) { return a.used < b.used; });
    *d = {};
    d->local = local;
    d->remote = remote;
  }
  d->used = std::max(now, Time(Duration(1)));
  latest_ = d;
  return d;
}

}  // namespace mtcp::stack
