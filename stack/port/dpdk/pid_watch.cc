#include "stack/port/dpdk/pid_watch.hh"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

#include "stack/port/dpdk/claims.hh"
#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

PidWatch::~PidWatch() {
  while (!descriptors_.empty()) remove(descriptors_.size() - 1);
}

void PidWatch::remove(std::size_t i) {
  if (tell_) tell_(descriptors_[i], false);
  system_call(SYS_close, descriptors_[i]);
  descriptors_.erase(descriptors_.begin() + static_cast<std::ptrdiff_t>(i));
  processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(i));
}

// The number may be another process's by now: then the one that is meant is dead, which whoever looks will see; or it is in another PID
// namespace, where this can't watch it.
bool PidWatch::add(std::uint64_t process) {
  if (!is_visible(process) && is_alive(process)) return errno = EXDEV, false;
  const int fd = raise(static_cast<int>(system_call(SYS_pidfd_open, static_cast<long>(process >> 32), 0)));
  if (fd < 0) return false;
  descriptors_.push_back(fd);
  processes_.push_back(process);
  if (tell_) tell_(fd, true);
  return true;
}

bool PidWatch::watch(std::span<const std::uint64_t> processes) {
  for (std::size_t i = processes_.size(); i-- > 0;)
    if (std::ranges::find(processes, processes_[i]) == processes.end()) remove(i);
  for (const std::uint64_t p : processes) {
    if (std::ranges::find(processes_, p) != processes_.end() || add(p)) continue;
    if (errno == ESRCH || errno == EINVAL) continue;  // it is dead, or none: whoever looks will see
    while (!descriptors_.empty()) remove(descriptors_.size() - 1);
    return false;
  }
  return true;
}

bool PidWatch::told() const {
  std::array<pollfd, kMost> fds;
  const std::size_t n = std::min(descriptors_.size(), fds.size());
  for (std::size_t i = 0; i < n; ++i) fds[i] = {descriptors_[i], POLLIN, 0};
  return n > 0 && system_call(SYS_poll, arg(fds.data()), static_cast<long>(n), 0) > 0;
}

}  // namespace mtcp::stack::dpdk
