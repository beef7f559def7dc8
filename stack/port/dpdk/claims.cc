#include "stack/port/dpdk/claims.hh"

#include <errno.h>
#include <fcntl.h>
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

namespace {

// Process-wide, as DPDK itself is.
std::atomic<std::uint64_t> known_identity;
std::atomic<int> life_fd{-1};

std::uint32_t pid_of(std::uint64_t identity) { return static_cast<std::uint32_t>(identity >> 32); }

// A lock of fcntl(2) is its process's: a child does not inherit it, and it ends with its process, zombie or not.
bool with_lock(int command, std::uint64_t identity, struct flock& lock) {
  lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = static_cast<off_t>(identity), .l_len = 1, .l_pid = 0};
  return system_call(SYS_fcntl, life_fd.load(std::memory_order_relaxed), command, arg(&lock)) == 0;
}

bool shows_life(std::uint64_t identity) {
  struct flock lock;
  return with_lock(F_GETLK, identity, lock) && lock.l_type != F_UNLCK;
}

// The same number and start in two PID namespaces: the second one takes another start.
std::uint64_t show_life(std::uint64_t identity) {
  constexpr std::uint32_t kStep = 0x9e3779b9;
  constexpr int kTries = 16;
  struct flock lock;
  for (int i = 0; i < kTries && !with_lock(F_SETLK, identity, lock) && (errno == EAGAIN || errno == EACCES); ++i)
    identity = std::uint64_t{pid_of(identity)} << 32 | (static_cast<std::uint32_t>(identity) + kStep);
  return identity;
}

}  // namespace

std::uint64_t own_identity() {
  const auto pid = static_cast<std::uint32_t>(system_call(SYS_getpid));
  std::uint64_t identity = known_identity.load(std::memory_order_relaxed);
  if (pid_of(identity) == pid) return identity;  // else this is the child of a fork
  const auto stat = read_own_stat();
  identity = std::uint64_t{pid} << 32 | (stat ? static_cast<std::uint32_t>(stat->start) : 0);
  if (life_fd.load(std::memory_order_relaxed) >= 0) identity = show_life(identity);
  known_identity.store(identity, std::memory_order_relaxed);
  return identity;
}

void show_life_on(int fd) {
  life_fd.store(fd, std::memory_order_relaxed);
  known_identity.store(0, std::memory_order_relaxed);
  if (fd >= 0) (void)own_identity();
}

bool is_visible(std::uint64_t owner) {
  const auto stat = read_stat(pid_of(owner));
  return stat && static_cast<std::uint32_t>(stat->start) == static_cast<std::uint32_t>(owner) && stat->state != 'Z' && stat->state != 'X';
}

bool is_alive(std::uint64_t owner) {
  if (owner == own_identity()) return true;
  const std::uint32_t pid = pid_of(owner);
  if (pid == 0 || pid > INT32_MAX) return false;  // no process: others may have written there
  if (is_visible(owner)) return true;
  if (life_fd.load(std::memory_order_relaxed) >= 0) return shows_life(owner);
  // Not visible (hidepid): then the kernel still tells whether there is such a process.
  return !read_stat(pid) && (system_call(SYS_kill, pid, 0) == 0 || errno == EPERM);
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
