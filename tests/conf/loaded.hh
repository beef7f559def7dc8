// A configuration given as text.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "conf/load.hh"

namespace mtcp::conf {

// A file that exists as long as this does.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    const int fd = mkstemp(path_);
    if (fd < 0 || write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) abort();
    close(fd);
  }
  ~TemporaryFile() { unlink(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] std::string path() const { return path_; }

 private:
  char path_[32] = "/tmp/mtcp-conf-XXXXXX";
};

struct Loaded {
  intercept::Options options;
  bool failed = false;
  std::string error;  // without the file's name: "line:column: what"
};

// A configuration on which nothing is wrong but what the text adds.
inline Loaded load_text(const std::string& text) {
  const TemporaryFile file(text);
  Loaded result;
  const LoadError error = load(file.path(), result.options);
  result.failed = error.failed;
  result.error = error.message;
  if (result.error.starts_with(file.path() + ":")) result.error = result.error.substr(file.path().size() + 1);
  return result;
}

inline Loaded load_with(const std::string& text) { return load_text("stack.loopback = true\n" + text); }

}  // namespace mtcp::conf
