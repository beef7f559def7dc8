// syscall(): programs that go past libc's names. What concerns descriptors of ours goes where the names go.
#include <errno.h>
#include <string.h>

#include <utility>

#include "preload/calls.hh"
#include "preload/edge.hh"

namespace mtcp::preload {
namespace {

struct Words {
  long word[7];  // the last only so that syscall() itself, which no number leads to, has a form here
};

template <class T>
T as(long v) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(v);
  } else {
    return static_cast<T>(v);
  }
}

template <class R, class... P, std::size_t... I>
long apply(R (*f)(P...), const Words& w, std::index_sequence<I...>) {
  if constexpr (std::is_void_v<R>) {
    f(as<P>(w.word[I])...);
    return 0;
  } else if constexpr (std::is_pointer_v<R>) {
    return reinterpret_cast<long>(f(as<P>(w.word[I])...));
  } else {
    return static_cast<long>(f(as<P>(w.word[I])...));
  }
}

template <class R, class... P>
long apply(R (*f)(P...), const Words& w) {
  return apply(f, w, std::make_index_sequence<sizeof...(P)>{});
}

// True if the call is one of ours to answer; `result` is then the answer.
bool waits(long number, const Words& w, long& result) {
  const auto* timeout = as<const timespec*>(w.word[2]);
  if (number == SYS_ppoll) {
    result =
        always::ppoll(as<pollfd*>(w.word[0]), as<nfds_t>(w.word[1]), timeout, as<const sigset_t*>(w.word[3]));
    return true;
  }
  if (number == SYS_pselect6) {
    const sigset_t* mask = nullptr;  // the last argument points at the mask's address and size
    if (w.word[5] != 0) memcpy(&mask, as<const void*>(w.word[5]), sizeof mask);
    result = always::pselect(as<int>(w.word[0]), as<fd_set*>(w.word[1]), as<fd_set*>(w.word[2]),
                             as<fd_set*>(w.word[3]), as<const timespec*>(w.word[4]), mask);
    return true;
  }
  return false;
}

// A call on a descriptor: true if it is not the kernel's to answer.
template <class F>
bool on_descriptor(intercept::FdKind kind, bool sets_too, F f, const Words& w, long& result) {
  using intercept::FdKind;
  if (kind == FdKind::kernel || (kind == FdKind::epoll && !sets_too)) return false;
  result = kind == FdKind::reserved ? translate(-EBADF) : apply(f, w);
  return true;
}

#define CASE(number) (number) < 0 ? -1000 - __LINE__ : (number)

// A call on a descriptor of ours, or one that decides for itself.
bool dispatch(long number, const Words& w, long& result) {
  const auto kind = kind_of(as<int>(w.word[0]));
  switch (number) {
#define SOCKET_CALL(type, name, parameters, arguments, number) \
  case CASE(number):                                           \
    return on_descriptor(kind, false, &ours::name, w, result);
#define FD_CALL(type, name, parameters, arguments, number) \
  case CASE(number):                                       \
    return on_descriptor(kind, true, &ours::name, w, result);
#define CALL(type, name, parameters, arguments, number) \
  case CASE(number):                                    \
    result = apply(&always::name, w);                   \
    return true;
#define ALIAS(alias, name)
#define HAND(name)
#define LEFT(name, reason)
#include "preload/calls.def"
    default:
      return waits(number, w, result);
  }
}

}  // namespace

long always::syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (thread.inside()) return next.syscall(number, a, b, c, d, e, f);
  // io_uring works on descriptors without any call that could be seen. Programs fall back when it is not
  // there.
  if (number == SYS_io_uring_setup && has_configuration()) return translate(-ENOSYS);
  if (engine() == nullptr && number != SYS_socket) return next.syscall(number, a, b, c, d, e, f);
  long result = 0;
  if (dispatch(number, Words{{a, b, c, d, e, f, 0}}, result)) return result;
  return next.syscall(number, a, b, c, d, e, f);
}

}  // namespace mtcp::preload
