// From the first TCP socket, which decides whether the engine is loaded, to the end of the process.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/go_runtime.hh"
#include "preload/kernel_next.hh"
#include "preload/notice.hh"

namespace mtcp::preload {

constinit Process process{.lock = PTHREAD_MUTEX_INITIALIZER};

namespace {

using intercept::Engine;
using intercept::EngineEntry;
using intercept::EngineFailure;

constexpr const char* kSystemConfiguration = "/etc/mtcp/mtcp.toml";

// Entries for every descriptor that this process may have, and for a million if that is less than its limit allows in the end:
// with privileges the hard limit, too, can be raised. Address space counts (RLIMIT_AS), and there are limits of a billion; a
// descriptor that has no entry is the kernel's. Pages come into being when they are written.
void map_table() {
  constexpr rlim_t kEnough = 1 << 20, kMost = 64U << 20;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) limit = {kEnough, kEnough};
  const rlim_t hard = geteuid() == 0 && limit.rlim_max < kEnough ? kEnough : limit.rlim_max;
  rlim_t wanted_entries = hard < kEnough ? hard : kEnough;
  if (limit.rlim_cur > wanted_entries) wanted_entries = limit.rlim_cur;
  if (wanted_entries > kMost) wanted_entries = kMost;
  const auto wanted = static_cast<long>(wanted_entries);
  const auto map = [](long bytes) {
    return mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  void* kinds = map(wanted);
  void* waits = map(wanted * static_cast<long>(sizeof(std::uint16_t)));
  if (kinds == MAP_FAILED || waits == MAP_FAILED) return;
  process.fds.kinds = static_cast<std::atomic<std::uint8_t>*>(kinds);
  process.fds.kernel_waits = static_cast<std::atomic<std::uint16_t>*>(waits);
  __atomic_store_n(&process.fds.size, static_cast<int>(wanted), __ATOMIC_RELEASE);
}

// The engine lies beside the shim, or below it in mtcp/ where it is installed. The directory is the one of the time when the shim was loaded, so that a
// relative LD_PRELOAD survives chdir().
bool engine_path(char (&path)[PATH_MAX]) {
  Dl_info info{};
  link_map* self = nullptr;
  char directory[PATH_MAX];
  if (dladdr1(&process, &info, reinterpret_cast<void**>(&self), RTLD_DL_LINKMAP) == 0 || self == nullptr)
    return false;
  if (dlinfo(self, RTLD_DI_ORIGIN, directory) != 0) return false;
  for (const char* below : {"", "mtcp/"}) {
    const int n = snprintf(path, sizeof path, "%s/%s%s", directory, below, intercept::kEngineFileName);
    if (n <= 0 || n >= static_cast<int>(sizeof path)) return false;
    if (raw_syscall(SYS_faccessat, AT_FDCWD, reinterpret_cast<long>(path), F_OK) == 0) return true;
  }
  return true;  // dlopen says that it is not there
}

void report(const EngineFailure& failure) {
  const char* message =
      failure.message != nullptr ? failure.message : "the engine does not start and gives no reason";
  if (failure.exit_status == 0) {
    say("mtcp: %s: everything goes to the kernel\n", message);
    return;
  }
  say("mtcp: %s\n", message);
  raw_syscall(SYS_exit_group, failure.exit_status);
}

const intercept::Services* services() {
  static intercept::Services given;
  given = {.kernel = kernel_next(),
           .fds = &process.fds,
           .signal_count = signal_count,
           .last_signal_restarts = last_signal_restarts,
           .begin_sleep = begin_sleep,
           .end_sleep = end_sleep,
           .internal_thread = internal_thread,
           .notice_descriptor = notice_descriptor,
           .has_relatives = [] { return process.related.load(std::memory_order_relaxed); }};
  return &given;
}

// There is a configuration, so this program is to run on the stack: without an engine it does not run.
[[gnu::format(printf, 1, 2)]] void fail(const char* format, ...) {
  char text[PATH_MAX + 256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  say("mtcp: %s; unset LD_PRELOAD to run on the kernel\n", text);
  raw_syscall(SYS_exit_group, intercept::kExitConfiguration);
}

Engine* load() {
  keep_stderr();
  char path[PATH_MAX];
  if (!engine_path(path)) fail("cannot tell where %s is", intercept::kEngineFileName);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail("cannot load the engine: %s", dlerror());
  const auto entry = reinterpret_cast<EngineEntry>(dlsym(library, intercept::kEngineEntryName));
  if (entry == nullptr) fail("%s is not an engine (no %s)", path, intercept::kEngineEntryName);
  if (process.fds.size == 0) map_table();  // the lock is held
  if (process.fds.size == 0) fail("no memory for the descriptor table");
  EngineFailure failure;
  Engine* e = entry(intercept::kEngineAbi, services(), &failure);
  if (e == nullptr) report(failure);
  return e;
}

void exit_quickly() { tell_exit(); }

void decide() {
  const int before = errno;
  if (!has_configuration()) {
    if (secure_getenv("MTCP_LOG") != nullptr && warnings_are_wanted())
      say("mtcp: no configuration (MTCP_CONF or %s): everything goes to the kernel\n", kSystemConfiguration);
  } else {
    warn_of_go();
    Engine* e = nullptr;
    process.loading.store(true, std::memory_order_release);
    {
      Inside inside;  // what the engine and its drivers do while starting is not the application's doing
      resolve_all();
      e = load();
      if (e != nullptr) start_wrapping();
    }
    if (e != nullptr) {
      at_quick_exit(exit_quickly);
      process.engine.store(e, std::memory_order_release);
    }
  }
  process.decided.store(true, std::memory_order_release);
  process.loading.store(false, std::memory_order_release);
  errno = before;
}

}  // namespace

bool has_configuration() {
  static std::atomic<int> known;  // 0: not yet asked, 1: no, 2: yes
  int answer = known.load(std::memory_order_relaxed);
  if (answer == 0) {
    const char* named = secure_getenv("MTCP_CONF");
    const bool there =
        (named != nullptr && *named != '\0') ||
        raw_syscall(SYS_faccessat, AT_FDCWD, reinterpret_cast<long>(kSystemConfiguration), R_OK) == 0;
    answer = there ? 2 : 1;
    known.store(answer, std::memory_order_relaxed);
  }
  return answer == 2;
}

Engine* engine_for_tcp() {
  if (!process.decided.load(std::memory_order_acquire)) [[unlikely]] {
    pthread_mutex_lock(&process.lock);
    if (!process.decided.load(std::memory_order_relaxed)) decide();
    pthread_mutex_unlock(&process.lock);
  }
  return engine();
}

bool make_table() {
  if (__atomic_load_n(&process.fds.size, __ATOMIC_ACQUIRE) != 0) [[likely]]
    return true;
  pthread_mutex_lock(&process.lock);
  if (process.fds.size == 0) map_table();
  pthread_mutex_unlock(&process.lock);
  return process.fds.size != 0;
}

void repair_child() {
  ++process.forks;
  if (const int fd = drop_stderr_in_child(); fd >= 0 && kind_of(fd) == intercept::FdKind::reserved)
    process.fds.set(fd, intercept::FdKind::kernel);
  // The threads that waited are not here. Dropped pages of private memory are zero again.
  if (process.fds.size != 0) {
    madvise(process.fds.kernel_waits, static_cast<size_t>(process.fds.size) * sizeof(std::uint16_t),
            MADV_DONTNEED);
  }
  process.lock = PTHREAD_MUTEX_INITIALIZER;
  // Another thread of the parent was loading the engine: what there is of it here is of no use.
  if (process.loading.exchange(false)) process.decided.store(true, std::memory_order_release);
  forget_deferred();
}

void tell_exit() {
  if (engine() == nullptr || thread.inside() || process.exited) return;
  process.exited = true;
  const int before = errno;
  Inside inside;
  engine()->at_exit();
  errno = before;
}

namespace {
// After the application's own atexit functions and destructors, which may still use their sockets.
__attribute__((destructor)) void at_end() { tell_exit(); }
}  // namespace

void always::_exit(int status) {
  tell_exit();
  next._exit(status);
}

}  // namespace mtcp::preload
