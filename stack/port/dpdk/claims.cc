#include "stack/port/dpdk/claims.hh"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/process_stat.hh"
#include "stack/port/dpdk/shared_memory.hh"

namespace mtcp::stack::dpdk {

std::uint64_t own_identity() {
  static std::atomic<std::uint64_t> known;
  const auto pid = static_cast<std::uint32_t>(system_call(SYS_getpid));
  std::uint64_t identity = known.load(std::memory_order_relaxed);
  if (identity >> 32 == pid) return identity;  // else this is the child of a fork
  const auto stat = read_stat(pid);
  identity = std::uint64_t{pid} << 32 | (stat ? static_cast<std::uint32_t>(stat->start) : 0);
  known.store(identity, std::memory_order_relaxed);
  return identity;
}

bool is_alive(std::uint64_t owner) {
  if (owner == own_identity()) return true;
  const auto pid = static_cast<std::uint32_t>(owner >> 32);
  if (pid == 0 || pid > INT32_MAX) return false;  // no process: others may have written there
  if (const auto stat = read_stat(pid))
    return static_cast<std::uint32_t>(stat->start) == static_cast<std::uint32_t>(owner) && stat->state != 'Z' && stat->state != 'X';
  // Not visible (hidepid): then the kernel still tells whether there is such a process.
  return system_call(SYS_kill, pid, 0) == 0 || errno == EPERM;
}

std::unique_ptr<Claims> Claims::create(std::uint32_t queues) {
  const int fd = create_shared_memory("mtcp-claims", queues * sizeof(Queue));
  auto claims = adopt(fd, queues);
  if (claims != nullptr) std::uninitialized_value_construct_n(claims->queues_.data(), queues);
  return claims;
}

std::unique_ptr<Claims> Claims::adopt(int fd, std::uint32_t queues) {
  const std::span<std::byte> bytes = map_shared_memory(fd, 0, queues * sizeof(Queue));
  if (bytes.empty()) return nullptr;
  return std::unique_ptr<Claims>(new Claims(reinterpret_cast<Queue*>(bytes.data()), queues, fd));
}

Claims::~Claims() { munmap(queues_.data(), queues_.size_bytes()); }

Claims::Outcome Claims::claim(std::uint32_t index) {
  if (index >= queues_.size()) return Outcome::taken;
  std::atomic<std::uint64_t>& slot = queues_[index].owner;
  std::uint64_t owner = slot.load(std::memory_order_acquire);
  if (owner != 0 && is_alive(owner)) return Outcome::taken;
  const bool was_free = owner == 0;
  if (!slot.compare_exchange_strong(owner, own_identity(), std::memory_order_acq_rel)) return Outcome::taken;
  return was_free ? Outcome::free : Outcome::inherited;
}

void Claims::release(std::uint32_t index) { queues_[index].owner.store(0, std::memory_order_release); }

bool Claims::any_alive() const {
  return std::ranges::any_of(queues_, [](const Queue& q) {
    const std::uint64_t owner = q.owner.load(std::memory_order_acquire);
    return owner != 0 && is_alive(owner);
  });
}

}  // namespace mtcp::stack::dpdk
