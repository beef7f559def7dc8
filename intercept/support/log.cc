#include "intercept/support/log.hh"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "intercept/engine.hh"

namespace mtcp::intercept {
namespace {

// The one state of this room that is not in Process: a log line may come from anywhere in the engine.
struct LogState {
  Kernel* kernel = nullptr;
  LogLevel level = LogLevel::warning;
  int file = -1;
  int (*standard)() = nullptr;  // Services::notice_descriptor
};
LogState state;

int destination() {
  if (state.file >= 0) return state.file;
  return state.standard != nullptr ? state.standard() : STDERR_FILENO;
}

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::none:
      return "";
    case LogLevel::error:
      return "error";
    case LogLevel::warning:
      return "warning";
    case LogLevel::info:
      return "info";
    case LogLevel::debug:
      return "debug";
  }
  return "";
}

constexpr int kHighNumber = 900;  // out of the way of numbers that an application counts on

}  // namespace

void log_start(const Services& services, LogLevel level, const char* file) {
  Kernel& kernel = *services.kernel;
  state.kernel = &kernel;
  state.level = level;
  state.standard = services.notice_descriptor;
  if (file == nullptr || *file == '\0') return;
  const int fd = ::open(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0640);
  if (fd < 0) {
    const int error = errno;
    log(LogLevel::error, "can't open the log file %s: %s; logging to stderr", file, std::strerror(error));
    return;
  }
  const int high = kernel.fcntl(fd, F_DUPFD_CLOEXEC, kHighNumber);
  state.file = high >= 0 ? high : fd;
  if (high >= 0) (void)kernel.close(fd);
}

int log_descriptor() {
  const int fd = destination();
  return fd == STDERR_FILENO ? -1 : fd;
}

bool log_enabled(LogLevel level) { return level <= state.level; }

void log(LogLevel level, const char* format, ...) {
  if (!log_enabled(level)) return;
  const int saved = errno;
  std::array<char, 1024> line;
  const int head =
      std::snprintf(line.data(), line.size(), "mtcp[%d] %s: ", static_cast<int>(::getpid()), name_of(level));
  auto length = static_cast<std::size_t>(std::max(head, 0));
  va_list arguments;
  va_start(arguments, format);
  const int body = std::vsnprintf(line.data() + length, line.size() - length, format, arguments);
  va_end(arguments);
  length = std::min(length + static_cast<std::size_t>(std::max(body, 0)), line.size() - 1);
  line[length++] = '\n';
  // A log that can't be written has nowhere to say so.
  if (const int fd = destination(); fd >= 0) {
    [[maybe_unused]] const ssize_t written = state.kernel != nullptr ? state.kernel->write(fd, line.data(), length)
                                                                     : ::write(fd, line.data(), length);
  }
  errno = saved;
}

}  // namespace mtcp::intercept
