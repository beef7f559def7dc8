// What the exported names do when it is not simply libc's turn. All as the libc function of the same name,
// errno included.
#pragma once

#include "preload/next.hh"

namespace mtcp::preload {

namespace ours {  // the descriptor is ours
#define SOCKET_CALL(result, name, parameters, arguments, number) result name parameters;
#define FD_CALL SOCKET_CALL
#define CALL(result, name, parameters, arguments, number)
#define ALIAS(alias, name)
#define HAND(name)
#define LEFT(name, reason)
#include "preload/calls.def"
#undef SOCKET_CALL
#undef FD_CALL
#undef CALL
}  // namespace ours

namespace always {  // decides for itself
#define SOCKET_CALL(result, name, parameters, arguments, number)
#define FD_CALL SOCKET_CALL
#define CALL(result, name, parameters, arguments, number) result name parameters;
#include "preload/calls.def"
#undef SOCKET_CALL
#undef FD_CALL
#undef CALL
#undef ALIAS
#undef HAND
#undef LEFT
}  // namespace always

}  // namespace mtcp::preload
