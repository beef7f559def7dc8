// The engine's log: a line to the standard error that the program was started with, or to a file. Nothing is logged per packet.
#pragma once

#include "intercept/options.hh"

namespace mtcp::intercept {

struct Services;

// Opens the file (append, O_CLOEXEC) if there is one. Messages below `level` cost one comparison.
void log_start(const Services& services, LogLevel level, const char* file);
// The descriptor of the log file, or of the copy of standard error, to be reserved; -1: descriptor 2, or none.
[[nodiscard]] int log_descriptor();
[[nodiscard]] bool log_enabled(LogLevel level);
// One line "mtcp[pid] level: text". Async-signal-safe after formatting; keeps errno.
void log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace mtcp::intercept
