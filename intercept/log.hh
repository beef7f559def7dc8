// The engine's log: a line to stderr or a file. Nothing is logged per packet.
#pragma once

#include "intercept/options.hh"

namespace mtcp::intercept {

class Kernel;

// Opens the file (append, O_CLOEXEC) if there is one. Messages below `level` cost one comparison.
void log_start(Kernel& kernel, LogLevel level, const char* file);
// The log file's descriptor, to be reserved; -1 when the log is stderr.
[[nodiscard]] int log_descriptor();
[[nodiscard]] bool log_enabled(LogLevel level);
// One line "mtcp[pid] level: text". Async-signal-safe after formatting; keeps errno.
void log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace mtcp::intercept
