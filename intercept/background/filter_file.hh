// [[filter]] of the configuration, as it changes while the program runs: the service thread looks at the file now and then.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "stack/base/time.hh"
#include "stack/options.hh"

namespace mtcp::intercept {

class Process;

// Reads the rules out of a configuration file. False and `message` if anything in it is wrong: then nothing of it counts.
using ReadFilter = bool (*)(const std::string& path, std::vector<stack::FilterRule>& rules, std::string& message);

class FilterFile {
 public:
  // `read`: null: it is never looked at.
  FilterFile(Process& process, ReadFilter read) : process_(process), read_(read) {}
  // Without the process's lock. A file that cannot be read any more, or is wrong, changes nothing.
  void look(stack::Time now);

 private:
  static constexpr stack::Duration kBetweenLooks = stack::milliseconds(500);
  struct Version {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    long seconds = 0, nanoseconds = 0;  // of the last change
    friend bool operator==(const Version&, const Version&) = default;
  };
  [[nodiscard]] static bool look_at(const char* path, Version& version);
  void take_over();

  Process& process_;
  ReadFilter read_;
  stack::Time next_look_{};
  bool known_ = false;
  Version read_version_;  // the one that counts
  Version seen_;          // at the last look: one that is still being written differs at the next
};

}  // namespace mtcp::intercept
