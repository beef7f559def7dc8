#include "intercept/log.hh"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "intercept/kernel.hh"

namespace mtcp::intercept {
namespace {

// The one state of this room that is not in Process: a log line may come from anywhere in the engine.
struct LogState {
  Kernel* kernel = nullptr;
  LogLevel level = LogLevel::warning;
  int fd = STDERR_FILENO;
};
LogState state;

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

void log_start(Kernel& kernel, LogLevel level, const char* file) {
  state.kernel = &kernel;
  state.level = level;
  if (file == nullptr || *file == '\0') return;
  const int fd = ::open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    const int error = errno;
    log(LogLevel::error, "can't open the log file %s: %s; logging to stderr", file, std::strerror(error));
    return;
  }
  const int high = kernel.fcntl(fd, F_DUPFD_CLOEXEC, kHighNumber);
  state.fd = high >= 0 ? high : fd;
  if (high >= 0) (void)kernel.close(fd);
}

int log_descriptor() { return state.fd == STDERR_FILENO ? -1 : state.fd; }

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
  if (state.kernel != nullptr) {
    (void)state.kernel->write(state.fd, line.data(), length);
  } else {
    [[maybe_unused]] const ssize_t written = ::write(state.fd, line.data(), length);
  }
  errno = saved;
}

}  // namespace mtcp::intercept
