// Before the process gives up privileges, the engine does what it still needs them for.
#include <sys/prctl.h>
#include <unistd.h>

#include "preload/calls.hh"
#include "preload/edge.hh"

namespace mtcp::preload {
namespace {

// A program that gives up root before its first socket has no engine yet, and its configuration may ask for a
// device to be opened now.
bool first_chance() {
  return !process.decided.load(std::memory_order_acquire) && geteuid() == 0 && has_configuration() &&
         engine_for_tcp() != nullptr;
}

void announce() {
  if (thread.inside() || (engine() == nullptr && !first_chance())) return;
  const int before = errno;
  {
    Inside inside;
    engine()->before_privileges();
  }
  errno = before;
}

// Options of prctl after which a device may be out of reach.
bool drops(int option) {
  return option == PR_CAPBSET_DROP || option == PR_SET_SECCOMP || option == PR_SET_SECUREBITS ||
         option == PR_CAP_AMBIENT;
}

}  // namespace

namespace always {

#define ANNOUNCED(name, parameters, arguments) \
  int name parameters {                        \
    announce();                                \
    return next.name arguments;                \
  }
ANNOUNCED(setuid, (uid_t u), (u))
ANNOUNCED(setgid, (gid_t g), (g))
ANNOUNCED(seteuid, (uid_t u), (u))
ANNOUNCED(setegid, (gid_t g), (g))
ANNOUNCED(setreuid, (uid_t r, uid_t e), (r, e))
ANNOUNCED(setregid, (gid_t r, gid_t e), (r, e))
ANNOUNCED(setresuid, (uid_t r, uid_t e, uid_t s), (r, e, s))
ANNOUNCED(setresgid, (gid_t r, gid_t e, gid_t s), (r, e, s))
ANNOUNCED(setgroups, (size_t n, const gid_t* g), (n, g))
ANNOUNCED(initgroups, (const char* user, gid_t g), (user, g))
ANNOUNCED(capset, (void* header, const void* data), (header, data))
ANNOUNCED(chroot, (const char* path), (path))
#undef ANNOUNCED

int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
  if (drops(option)) announce();
  return next.prctl(option, a, b, c, d);
}

}  // namespace always
}  // namespace mtcp::preload
