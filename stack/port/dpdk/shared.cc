#include "stack/port/dpdk/shared.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "stack/port/dpdk/claims.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/shared_memory.hh"

namespace mtcp::stack::dpdk {

std::uint32_t SharedState::slots() {
  constexpr long kLeast = 32;
  return static_cast<std::uint32_t>(std::clamp(2 * sysconf(_SC_NPROCESSORS_ONLN), kLeast, long{kMaxStacks}));
}

std::unique_ptr<SharedState> SharedState::create(const ControlBlock::Shape& shape) {
  ControlBlock::Secrets secrets;
  if (system_call(SYS_getrandom, reinterpret_cast<long>(secrets.data()), sizeof secrets) != long{sizeof secrets})
    return nullptr;
  std::unique_ptr<SharedState> state(new SharedState);
  state->memory_fd_ = create_shared_memory("mtcp-control", ControlBlock::memory(shape));
  std::byte* head = state->map(0, ControlBlock::head_memory(shape));
  if (head == nullptr) return nullptr;
  for (std::uint32_t i = 0; i < shape.slots; ++i) {
    const int fd = move_high(static_cast<int>(system_call(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK)));
    if (fd < 0) return nullptr;
    state->wake_.push_back(fd);
  }
  if (!state->begin_family()) return nullptr;
  show_life_on(state->memory_fd_);
  state->control_ = std::make_unique<ControlBlock>(head, state->mapper(), shape, &secrets);
  return state;
}

std::byte* SharedState::map(std::size_t offset, std::size_t bytes) {
  const std::span<std::byte> memory = map_shared_memory(memory_fd_, offset, bytes);
  if (memory.empty()) return nullptr;
  mapped_.push_back(memory);
  // Other people's packets do not belong in a core dump of one of us; if it can't be said they are in it.
  (void)madvise(memory.data(), memory.size(), MADV_DONTDUMP);
  return memory.data();
}

ControlBlock::Map SharedState::mapper() {
  return [this](std::size_t offset, std::size_t bytes) { return map(offset, bytes); };
}

std::unique_ptr<SharedState> SharedState::adopt(const ControlBlock::Shape& shape, std::span<const int> descriptors) {
  std::unique_ptr<SharedState> state(new SharedState);
  state->memory_fd_ = descriptors[0];
  std::byte* head = state->map(0, ControlBlock::head_memory(shape));
  if (head == nullptr) {
    state->memory_fd_ = -1;  // still the caller's, as the others are
    return nullptr;
  }
  show_life_on(state->memory_fd_);
  state->family_[0] = descriptors[1];
  state->family_[1] = descriptors[2];
  state->wake_.assign(descriptors.begin() + 3, descriptors.end());
  state->control_ = std::make_unique<ControlBlock>(head, state->mapper(), shape, nullptr);
  return state;
}

std::vector<int> SharedState::descriptors() const {
  std::vector<int> all{memory_fd_, family_[0], family_[1]};
  all.insert(all.end(), wake_.begin(), wake_.end());
  return all;
}

SharedState::~SharedState() {
  if (memory_fd_ >= 0) show_life_on(-1);
  if (memory_fd_ >= 0) mtcp_dpdk_close(memory_fd_);
  for (const int fd : wake_) mtcp_dpdk_close(fd);
  for (const int fd : family_)
    if (fd >= 0) mtcp_dpdk_close(fd);
  for (const auto& part : mapped_) munmap(part.data(), part.size());
}

bool SharedState::begin_family() {
  for (int& fd : family_)
    if (fd >= 0) mtcp_dpdk_close(std::exchange(fd, -1));
  if (system_call(SYS_pipe2, reinterpret_cast<long>(family_), O_CLOEXEC | O_NONBLOCK) != 0) return false;
  for (int& fd : family_) fd = move_high(fd);
  return family_[0] >= 0 && family_[1] >= 0;
}

bool SharedState::end_of_family() {
  if (family_[1] >= 0) mtcp_dpdk_close(std::exchange(family_[1], -1));
  pollfd reader{family_[0], POLLIN, 0};
  return system_call(SYS_poll, reinterpret_cast<long>(&reader), 1, 0) == 1 && (reader.revents & POLLHUP) != 0;
}

bool SharedState::has_room(std::size_t queues) const {
  const std::size_t most = std::min<std::size_t>(queues, control_->slots() - control_->slots() / 4);
  return control_->members().size() < most;
}

void SharedState::wake(std::uint32_t stack) const {
  const std::uint64_t one = 1;
  system_call(SYS_write, wake_[stack], reinterpret_cast<long>(&one), sizeof one);
}

void SharedState::clear_wake(std::uint32_t stack) const {
  std::uint64_t count = 0;
  system_call(SYS_read, wake_[stack], reinterpret_cast<long>(&count), sizeof count);
}

}  // namespace mtcp::stack::dpdk
