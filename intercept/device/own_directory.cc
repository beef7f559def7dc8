#include "intercept/device/own_directory.hh"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mtcp::intercept {
namespace {

constexpr int kNames = 100;

// -ENOENT if there is nothing of this name, -EPERM if it is not ours alone; or what keeps anything from being opened.
int open_if_ours(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : -EPERM;
  struct stat s {};
  if (::fstat(fd, &s) == 0 && s.st_uid == ::geteuid() && (s.st_mode & 0777) == 0700) return fd;
  ::close(fd);
  return -EPERM;
}

int make(const char* path) {
  if (::mkdir(path, 0700) != 0 && errno != EEXIST) return -errno;
  return open_if_ours(path);
}

}  // namespace

int open_own_directory() {
  if (::geteuid() == 0) {
    const int fd = open_if_ours("/run/mtcp");
    return fd == -ENOENT ? make("/run/mtcp") : fd;
  }
  // Once there is one it is everybody's of this user, whatever becomes free before it.
  char path[64];
  const auto name = [&](int i) {
    const int n = snprintf(path, sizeof path, "/tmp/mtcp-%u", static_cast<unsigned>(::geteuid()));
    if (i > 0) snprintf(path + n, sizeof path - static_cast<unsigned>(n), ".%d", i);
    return path;
  };
  for (int i = 0; i < kNames; ++i)
    if (const int fd = open_if_ours(name(i)); fd != -ENOENT && fd != -EPERM) return fd;
  int error = -EPERM;
  for (int i = 0; i < kNames && error == -EPERM; ++i)
    if ((error = make(name(i))) >= 0) return error;
  return error;
}

}  // namespace mtcp::intercept
