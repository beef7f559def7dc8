// The exported names, made from calls.def. They are defined under other names with the libc name as their
// assembler name, so that libc's own declarations (attributes, variable arguments) do not stand in the way.
#include <errno.h>

#include "preload/calls.hh"
#include "preload/edge.hh"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace mtcp::preload {
namespace {

enum class Way : std::uint8_t { engine, libc, refuse };

// Where a call on a descriptor that is not the kernel's goes.
Way way(intercept::FdKind kind, bool sets_too) {
  if (thread.inside()) return Way::libc;  // the engine's own use of it, or a driver's
  if (kind == intercept::FdKind::reserved) {
    errno = EBADF;  // as far as the application knows
    return Way::refuse;
  }
  if (kind == intercept::FdKind::epoll && !sets_too) return Way::libc;
  return Way::engine;
}

template <class R>
R refused() {
  if constexpr (std::is_pointer_v<R>) {
    return nullptr;
  } else {
    return -1;
  }
}

}  // namespace
}  // namespace mtcp::preload

using namespace mtcp::preload;  // NOLINT: the functions below belong to nobody's namespace

// The part that kernel descriptors do not take is apart, so that theirs is a load, a comparison and a jump.
#define DESCRIPTOR_CALL(result, name, parameters, arguments, sets_too) \
  [[gnu::noinline]] static result elsewhere_##name parameters {        \
    switch (way(kind_of(fd), sets_too)) {                              \
      case Way::engine:                                                \
        return ours::name arguments;                                   \
      case Way::libc:                                                  \
        return next.name arguments;                                    \
      case Way::refuse:                                                \
        break;                                                         \
    }                                                                  \
    return refused<result>();                                          \
  }                                                                    \
  EXPORTED result mtcp_##name parameters __asm__(#name);               \
  result mtcp_##name parameters {                                      \
    if (is_kernel(fd)) [[likely]]                                      \
      return next.name arguments;                                      \
    return elsewhere_##name arguments;                                 \
  }
#define SOCKET_CALL(result, name, parameters, arguments, number) \
  DESCRIPTOR_CALL(result, name, parameters, arguments, false)
#define FD_CALL(result, name, parameters, arguments, number) \
  DESCRIPTOR_CALL(result, name, parameters, arguments, true)
#define CALL(result, name, parameters, arguments, number) \
  EXPORTED result mtcp_##name parameters __asm__(#name);  \
  result mtcp_##name parameters { return always::name arguments; }
#define ALIAS(alias_name, name) \
  EXPORTED decltype(mtcp_##name) mtcp_##alias_name __asm__(#alias_name) __attribute__((alias(#name)));
#define HAND(name)
#define LEFT(name, reason)
#include "preload/calls.def"
