// fork, exec and their kin: the engine is told before and after.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/inherited.hh"

namespace mtcp::preload {
namespace {

// Forks by `real`. The thread counts as inside the engine all the time, so that no handler runs while locks
// are held.
template <class F>
pid_t fork_by(F real) {
  if (thread.inside()) return real();
  process.related.store(true, std::memory_order_relaxed);
  if (engine() == nullptr) {
    const pid_t pid = real();
    if (pid == 0) repair_child();
    return pid;
  }
  pthread_mutex_lock(&process.lock);
  Inside inside;
  engine()->before_fork();
  const pid_t pid = real();
  const int result = errno;
  if (pid == 0) repair_child();
  engine()->after_fork(pid == 0);
  if (pid != 0) pthread_mutex_unlock(&process.lock);
  errno = result;
  return pid;
}

// exec by `real` with this environment, which comes back only if it fails.
template <class F>
int exec_by(char* const* envp, F real) {
  if (engine() == nullptr || thread.inside()) return real(envp);
  {
    Inside inside;
    engine()->before_exec();
  }
  const Environment environment(envp);
  real(environment.get());
  const int why = errno;
  {
    Inside inside;
    engine()->after_failed_exec();
  }
  errno = why;
  return -1;
}

}  // namespace

namespace always {

pid_t fork() {
  return fork_by([] { return next.fork(); });
}

pid_t _Fork() {
  return fork_by([] { return next._Fork(); });
}

// A child of vfork works in its parent's memory until it execs: its close() and dup2() would be its parent's.
// So with an engine it is a fork. Without, libc's, and by a jump: a function that returns twice must not have
// a caller here.
pid_t vfork() {
  if (engine() == nullptr || thread.inside()) return next.vfork();
  return fork();
}

pid_t forkpty(int* master, char* name, const termios* t, const winsize* w) {
  return fork_by([=] { return next.forkpty(master, name, t, w); });
}

// As libc's, over our fork: libc's own does not call what it exports.
int daemon(int keep_directory, int keep_streams) {
  if (engine() == nullptr || thread.inside()) return next.daemon(keep_directory, keep_streams);
  const pid_t pid = fork();
  if (pid < 0) return -1;
  if (pid > 0) _exit(0);
  if (setsid() < 0) return -1;
  if (keep_directory == 0 && chdir("/") < 0) return -1;
  if (keep_streams != 0) return 0;
  const int null = open("/dev/null", O_RDWR);
  if (null < 0) return -1;
  struct stat what {};
  if (fstat(null, &what) != 0 || !S_ISCHR(what.st_mode)) {
    next.close(null);
    return translate(-ENODEV);
  }
  for (int fd = 0; fd <= 2; ++fd) {
    if (dup2(null, fd) < 0) return -1;
  }
  if (null > 2) next.close(null);
  return 0;
}

int execve(const char* path, char* const* argv, char* const* envp) {
  return exec_by(envp, [=](char* const* e) { return next.execve(path, argv, e); });
}
int execv(const char* path, char* const* argv) {
  return exec_by(environ, [=](char* const* e) { return next.execve(path, argv, e); });
}
int execvp(const char* file, char* const* argv) {
  return exec_by(environ, [=](char* const* e) { return next.execvpe(file, argv, e); });
}
int execvpe(const char* file, char* const* argv, char* const* envp) {
  return exec_by(envp, [=](char* const* e) { return next.execvpe(file, argv, e); });
}
int fexecve(int fd, char* const* argv, char* const* envp) {
  return exec_by(envp, [=](char* const* e) { return next.fexecve(fd, argv, e); });
}
int execveat(int dir, const char* path, char* const* argv, char* const* envp, int flags) {
  return exec_by(envp, [=](char* const* e) { return next.execveat(dir, path, argv, e, flags); });
}

}  // namespace always

namespace {

// Calls f(argv, envp) with the arguments of an execl function in an array; envp comes from the list if
// `with_environment`.
template <class F>
int with_arguments(const char* first, va_list args, bool with_environment, F f) {
  va_list again;
  va_copy(again, args);
  std::size_t n = 1;
  while (va_arg(again, char*) != nullptr) ++n;
  va_end(again);
  auto** argv = static_cast<char**>(__builtin_alloca((n + 1) * sizeof(char*)));
  argv[0] = const_cast<char*>(first);
  for (std::size_t i = 1; i <= n; ++i) argv[i] = va_arg(args, char*);
  return f(argv, with_environment ? va_arg(args, char* const*) : environ);
}

}  // namespace
}  // namespace mtcp::preload

#define EXPORTED extern "C" __attribute__((visibility("default")))
EXPORTED int mtcp_execl(const char* path, const char* first, ...) __asm__("execl");
EXPORTED int mtcp_execle(const char* path, const char* first, ...) __asm__("execle");
EXPORTED int mtcp_execlp(const char* file, const char* first, ...) __asm__("execlp");

int mtcp_execl(const char* path, const char* first, ...) {
  va_list args;
  va_start(args, first);
  const int r = mtcp::preload::with_arguments(first, args, false, [=](char* const* argv, char* const* envp) {
    return mtcp::preload::always::execve(path, argv, envp);
  });
  va_end(args);
  return r;
}

int mtcp_execle(const char* path, const char* first, ...) {
  va_list args;
  va_start(args, first);
  const int r = mtcp::preload::with_arguments(first, args, true, [=](char* const* argv, char* const* envp) {
    return mtcp::preload::always::execve(path, argv, envp);
  });
  va_end(args);
  return r;
}

int mtcp_execlp(const char* file, const char* first, ...) {
  va_list args;
  va_start(args, first);
  const int r = mtcp::preload::with_arguments(first, args, false, [=](char* const* argv, char* const*) {
    return mtcp::preload::always::execvp(file, argv);
  });
  va_end(args);
  return r;
}
