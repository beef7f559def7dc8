// What a test program inherits and its cases depend on, set to what they take for granted. `nohup`, a service manager, a
// shell's background job or a user's profile hand down something else.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace mtcp::test {

inline void set_surroundings() {
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction now {};
    // One with a handler is a sanitizer's.
    if (sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN) signal(number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  umask(022);
  setenv("LC_ALL", "C", 1);
  for (const char* name : {"TMPDIR", "MTCP_LOG", "LANGUAGE", "POSIXLY_CORRECT"}) unsetenv(name);
  setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  // Some cases use up all descriptors, others want a few hundred.
  constexpr rlim_t kDescriptors = 1024;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = std::min(kDescriptors, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  // The standard streams' numbers, so that no socket gets one.
  for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR)) {
    if (fd <= STDERR_FILENO) continue;
    close(fd);
    break;
  }
}

}  // namespace mtcp::test
