// libc's own functions: one pointer for each name of calls.def.
#pragma once

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <termios.h>
#include <time.h>

#include "preload/raw.hh"

namespace mtcp::preload {

// Each pointer starts at a function that looks the name up, puts the result in its place and calls it: so a
// call is right at any time, even before the shim's constructors, and costs an indirect jump from the second
// time on.
struct Next {
#define SOCKET_CALL(result, name, parameters, arguments, number) result(*name) parameters;
#define FD_CALL SOCKET_CALL
#define CALL SOCKET_CALL
#define ALIAS(alias, name)
#define HAND(name)
#define LEFT(name, reason)
#include "preload/calls.def"
#undef SOCKET_CALL
#undef FD_CALL
#undef CALL
#undef ALIAS
#undef HAND
#undef LEFT
};
extern Next next;

// Looks up everything now, so that no later call has to take the dynamic linker's lock (in a signal handler,
// in a child after fork).
void resolve_all();

}  // namespace mtcp::preload
