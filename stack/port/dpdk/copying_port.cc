#include "stack/port/dpdk/copying_port.hh"

#include <algorithm>
#include <array>
#include <cstring>

namespace mtcp::stack::dpdk {

namespace {

// False if it does not fit.
bool copy(const Packet& from, Packet& to) {
  if (from.len > to.tailroom()) return false;
  std::memcpy(to.data, from.data, from.len);
  to.len = from.len;
  to.flags = static_cast<std::uint16_t>(from.flags & (kRxL4Good | kRxHash | kTxL4Offload));
  to.payload_sum = from.payload_sum;
  return true;
}

}  // namespace

std::size_t CopyingPort::rx(Packet** out, std::size_t max) {
  std::array<Packet*, kBurst> received;
  const std::size_t n = queue_->rx(received.data(), std::min(max, kBurst));
  std::size_t stock = n == 0 ? 0 : pool_.alloc(out, n);
  std::size_t taken = 0;
  for (std::size_t i = 0; i < n && taken < stock; ++i)
    if (copy(*received[i], *out[taken])) ++taken;
  if (n > 0) queue_->pool().free(received.data(), n);
  if (stock > taken) pool_.free(out + taken, stock - taken);
  dropped_ += n - taken;
  return taken;
}

std::size_t CopyingPort::tx(Packet* const* packets, std::size_t n) {
  std::size_t sent = 0;
  while (sent < n) {
    std::array<Packet*, kBurst> copies;
    const std::size_t want = std::min(n - sent, kBurst);
    const std::size_t have = queue_->pool().alloc(copies.data(), want);
    std::size_t fit = 0;
    while (fit < have && copy(*packets[sent + fit], *copies[fit])) ++fit;
    const std::size_t taken = fit == 0 ? 0 : queue_->tx(copies.data(), fit);
    if (have > taken) queue_->pool().free(copies.data() + taken, have - taken);
    for (std::size_t i = 0; i < taken; ++i) {
      Packet* p = packets[sent + i];
      if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
    }
    sent += taken;
    if (taken < want) break;
  }
  return sent;
}

}  // namespace mtcp::stack::dpdk
