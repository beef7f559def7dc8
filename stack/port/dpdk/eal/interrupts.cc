#include "stack/port/dpdk/eal/interrupts.hh"

#include <errno.h>
#include <rte_interrupts.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

// What has to be read so that the descriptor is quiet again; 0 for those that their callback reads.
std::size_t bytes_to_consume(const rte_intr_handle* handle) {
  switch (rte_intr_type_get(handle)) {
    case RTE_INTR_HANDLE_UIO:
    case RTE_INTR_HANDLE_UIO_INTX:
      return 4;
    case RTE_INTR_HANDLE_ALARM:
    case RTE_INTR_HANDLE_VFIO_LEGACY:
    case RTE_INTR_HANDLE_VFIO_MSI:
    case RTE_INTR_HANDLE_VFIO_MSIX:
    case RTE_INTR_HANDLE_VFIO_REQ:
      return 8;
    default:
      return 0;
  }
}

}  // namespace

Interrupts& interrupts() {
  static Interrupts instance;
  return instance;
}

int Interrupts::descriptor() {
  if (epoll_ < 0) epoll_ = move_high(static_cast<int>(system_call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  return epoll_;
}

void Interrupts::watch(int fd, Trigger trigger) {
  epoll_event event{};
  event.events = EPOLLIN;
  if (trigger == Trigger::edge) event.events |= EPOLLET;
  event.data.fd = fd;
  system_call(SYS_epoll_ctl, descriptor(), EPOLL_CTL_ADD, fd, reinterpret_cast<long>(&event));
}

int Interrupts::add(rte_intr_handle* handle, Handler handler, void* arg) {
  const int fd = rte_intr_fd_get(handle);
  if (fd < 0 || handler == nullptr) return -EINVAL;
  if (std::ranges::find(sources_, fd, &Source::fd) == sources_.end()) watch(fd, Trigger::level);
  sources_.push_back({fd, handle, handler, arg});
  return 0;
}

void Interrupts::forget(int fd) {
  if (std::ranges::find(sources_, fd, &Source::fd) != sources_.end()) return;
  system_call(SYS_epoll_ctl, epoll_, EPOLL_CTL_DEL, fd, 0);
}

int Interrupts::remove(const rte_intr_handle* handle, Handler handler, void* arg) {
  const int fd = rte_intr_fd_get(handle);
  const auto same_fd = [fd](const Source& s) { return s.fd == fd; };
  if (std::ranges::none_of(sources_, same_fd)) return -ENOENT;
  if (std::ranges::any_of(sources_, [&](const Source& s) { return same_fd(s) && s.active; })) return -EAGAIN;
  const auto removed = std::erase_if(sources_, [&](const Source& s) {
    return same_fd(s) && s.handler == handler && (arg == reinterpret_cast<void*>(-1) || s.arg == arg);
  });
  forget(fd);
  return static_cast<int>(removed);
}

int Interrupts::remove_later(const rte_intr_handle* handle, Handler handler, void* arg, Release release) {
  const int fd = rte_intr_fd_get(handle);
  int found = 0, same_fd = 0;
  for (Source& s : sources_) {
    if (s.fd != fd) continue;
    ++same_fd;
    if (s.handler != handler || (arg != reinterpret_cast<void*>(-1) && s.arg != arg)) continue;
    s.leaving = true;
    s.release = release;
    ++found;
  }
  return same_fd == 0 ? -ENOENT : found;
}

void Interrupts::serve(int fd) {
  const auto first = std::ranges::find(sources_, fd, &Source::fd);
  if (first == sources_.end()) return;
  if (const std::size_t n = bytes_to_consume(first->handle); n > 0) {
    std::array<std::byte, 8> ignored;
    system_call(SYS_read, fd, reinterpret_cast<long>(ignored.data()), static_cast<long>(n));
  }
  // Callbacks add and remove sources: look each one up by its index, and give the vector no reference to
  // keep.
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    if (sources_[i].fd != fd || sources_[i].leaving) continue;
    sources_[i].active = true;
    const Handler handler = sources_[i].handler;
    void* const arg = sources_[i].arg;
    handler(arg);
    for (Source& s : sources_)
      if (s.fd == fd) s.active = false;
  }
  for (std::size_t i = 0; i < sources_.size();) {
    if (!sources_[i].leaving) {
      ++i;
      continue;
    }
    const Source gone = sources_[i];
    sources_.erase(sources_.begin() + static_cast<std::ptrdiff_t>(i));
    forget(gone.fd);
    if (gone.release != nullptr) gone.release(gone.handle, gone.arg);
  }
}

void Interrupts::poll(const Wait& wait) {
  const std::unique_lock guard(polling_, std::try_to_lock);
  if (!guard.owns_lock() || sources_.empty()) return;  // another stack of this process is at it
  std::array<epoll_event, 16> events;
  const long n =
      system_call(SYS_epoll_pwait, epoll_, reinterpret_cast<long>(events.data()), events.size(), 0, 0, 0);
  for (long i = 0; i < n; ++i)
    if (const int fd = events[static_cast<std::size_t>(i)].data.fd; !wait || !wait(fd)) serve(fd);
}

void Interrupts::clear() {
  while (!sources_.empty()) {
    const int fd = sources_.back().fd;
    std::erase_if(sources_, [fd](const Source& s) { return s.fd == fd; });
    forget(fd);
    mtcp_dpdk_close(fd);
  }
}

}  // namespace mtcp::stack::dpdk

// The linker sends DPDK's calls here (--wrap).
using mtcp::stack::dpdk::interrupts;

extern "C" {

int __wrap_rte_eal_intr_init() { return 0; }  // no thread

int __wrap_rte_intr_callback_register(rte_intr_handle* handle, rte_intr_callback_fn handler, void* arg) {
  return interrupts().add(handle, handler, arg);
}
int __wrap_rte_intr_callback_unregister(const rte_intr_handle* handle, rte_intr_callback_fn handler,
                                        void* arg) {
  return interrupts().remove(handle, handler, arg);
}
int __wrap_rte_intr_callback_unregister_pending(const rte_intr_handle* handle, rte_intr_callback_fn handler,
                                                void* arg, rte_intr_unregister_callback_fn release) {
  return interrupts().remove_later(handle, handler, arg, release);
}
// There is no other thread that a running callback could be in: waiting for it would not end.
int __wrap_rte_intr_callback_unregister_sync(const rte_intr_handle* handle, rte_intr_callback_fn handler,
                                             void* arg) {
  return interrupts().remove(handle, handler, arg);
}
}
