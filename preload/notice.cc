#include "preload/notice.hh"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/raw.hh"

namespace mtcp::preload {
namespace {

// The file that was standard error when the program was started; `known` false: there was none.
struct First {
  bool known;
  dev_t device;
  ino_t inode;
  bool read_to_its_end;  // a pipe or socket
  pid_t owner;           // the process that was started with it
};
First first;
int kept = -1;

bool is_first(int fd) {
  struct stat now {};
  return first.known && raw_syscall(SYS_fstat, fd, reinterpret_cast<long>(&now)) == 0 &&
         now.st_dev == first.device && now.st_ino == first.inode;
}

// The number is far from those that programs count on, and low enough that the kernel's table need not grow for it.
int high_number() {
  constexpr rlim_t kHigh = 900, kBelowLimit = 64;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > kHigh + kBelowLimit) return kHigh;
  return static_cast<int>(limit.rlim_cur > kBelowLimit ? limit.rlim_cur - kBelowLimit : 0);
}

// Before all else that may say something.
__attribute__((constructor(101))) void remember_stderr() {
  struct stat now {};
  if (raw_syscall(SYS_fstat, STDERR_FILENO, reinterpret_cast<long>(&now)) != 0) return;
  first = {.known = true,
           .device = now.st_dev,
           .inode = now.st_ino,
           .read_to_its_end = S_ISFIFO(now.st_mode) || S_ISSOCK(now.st_mode),
           .owner = getpid()};
}

}  // namespace

void keep_stderr() {
  if (kept >= 0 || !is_first(STDERR_FILENO) || (first.read_to_its_end && getpid() != first.owner)) return;
  const long fd = raw_syscall(SYS_fcntl, STDERR_FILENO, F_DUPFD_CLOEXEC, high_number());
  if (fd >= 0) kept = static_cast<int>(fd);
}

int drop_stderr_in_child() {
  if (kept < 0 || !first.read_to_its_end) return -1;
  const int fd = kept;
  kept = -1;
  if (!is_first(fd)) return -1;
  raw_syscall(SYS_close, fd);
  return fd;
}

int notice_descriptor() {
  // The program may have closed the duplicate, too, and opened something else in its place.
  if (kept >= 0 && is_first(kept)) return kept;
  return is_first(STDERR_FILENO) ? STDERR_FILENO : -1;
}

void say(const char* format, ...) {
  const int before = errno;
  char line[1200];
  va_list args;
  va_start(args, format);
  const int n = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  const int fd = notice_descriptor();
  if (n > 0 && fd >= 0)
    raw_syscall(SYS_write, fd, reinterpret_cast<long>(line), n < 1200 ? n : 1199);
  errno = before;
}

bool warnings_are_wanted() {
  const char* level = secure_getenv("MTCP_LOG");
  return level == nullptr || (strcmp(level, "none") != 0 && strcmp(level, "error") != 0);
}

}  // namespace mtcp::preload
