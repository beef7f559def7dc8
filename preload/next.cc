#include "preload/next.hh"

#include <dlfcn.h>
#include <errno.h>

#include <type_traits>

#include "preload/thread.hh"

namespace mtcp::preload {
namespace {

// What serves while the real one cannot be had: dlsym itself has called us, or this libc has no such
// function.
template <class R>
struct Fallback {
  long number;

  template <class... A>
  R operator()(A... a) const {
    if constexpr (sizeof...(A) > 6) {  // syscall() itself: the number is its first argument
      return finish(raw_syscall(as_long(a)...));
    } else {
      if (number < 0) return finish(-ENOSYS);
      return finish(raw_syscall(number, as_long(a)...));
    }
  }

 private:
  template <class T>
  static long as_long(T v) {
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<long>(v);
    } else {
      return static_cast<long>(v);
    }
  }
  static R finish(long result) {
    if (result < 0 && result > -4096) {
      errno = static_cast<int>(-result);
      result = -1;
    }
    if constexpr (std::is_same_v<R, FILE*>) {
      return nullptr;
    } else if constexpr (std::is_pointer_v<R>) {
      return reinterpret_cast<R>(result);  // SIG_ERR is -1
    } else if constexpr (!std::is_void_v<R>) {
      return static_cast<R>(result);
    }
  }
};

void look_up(void** place, const char* name, void* missing) {
  const int before = errno;
  thread.resolving = true;
  void* found = dlsym(RTLD_NEXT, name);
  thread.resolving = false;
  errno = before;
  __atomic_store_n(place, found != nullptr ? found : missing, __ATOMIC_RELEASE);
}

#define RESOLVE(name) \
  look_up(reinterpret_cast<void**>(&next.name), #name, reinterpret_cast<void*>(&missing_##name))
#define SOCKET_CALL(result, name, parameters, arguments, number)                  \
  result missing_##name parameters { return Fallback<result>{number} arguments; } \
  result first_##name parameters {                                                \
    if (thread.resolving) return missing_##name arguments;                        \
    RESOLVE(name);                                                                \
    return next.name arguments;                                                   \
  }
#define FD_CALL SOCKET_CALL
#define CALL SOCKET_CALL
#define ALIAS(alias, name)
#define HAND(name)
#define LEFT(name, reason)
#include "preload/calls.def"
#undef SOCKET_CALL

}  // namespace

constinit Next next = {
#define SOCKET_CALL(result, name, parameters, arguments, number) &first_##name,
#include "preload/calls.def"
#undef SOCKET_CALL
};

void resolve_all() {
#define SOCKET_CALL(result, name, parameters, arguments, number) \
  if (next.name == &first_##name) RESOLVE(name);
#include "preload/calls.def"
#undef SOCKET_CALL
}

}  // namespace mtcp::preload
