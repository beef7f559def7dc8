// Options that the stack does not look at (sockopt_kinds.hh): reading and writing.
#pragma once

#include <sys/socket.h>

#include "intercept/process.hh"

namespace mtcp::intercept {

int set_kept_option(Process& process, Socket& s, int level, int name, const void* v, socklen_t n);
int get_kept_option(Process& process, const Socket& s, int level, int name, void* v, socklen_t* n);
[[nodiscard]] bool has_kept_option(const Socket& s, int level, int name);
// What a connection has of its listener's: all but SO_PRIORITY (inet_csk_clone_lock).
[[nodiscard]] std::shared_ptr<const KeptOptions> inherited(const std::shared_ptr<const KeptOptions>& all);
// IP_FREEBIND (IPV6_FREEBIND is the same) as the program has set it: the kernel socket of a listener may have
// it on as a mark.
[[nodiscard]] bool wants_freebind(const Socket& s);
// A listener's kernel socket does not listen any more, or does not yet: as the program wants it.
void unmark_listener(Process& process, Socket& s);
// Whether the kernel takes the value; it is set on the socket that may become the kernel's, or is, too.
int try_in_kernel(Process& process, Socket& s, int level, int name, const void* v, socklen_t n);

}  // namespace mtcp::intercept
