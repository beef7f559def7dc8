// What a program is called, for match.program of a rule and for mtcp-stat.
#pragma once

#include <string>
#include <vector>

namespace mtcp::intercept {

struct Program {
  Program() = default;
  Program(std::string path);         // NOLINT(google-explicit-constructor): a program with this path only
  Program(const char* path) : Program(std::string(path)) {}  // NOLINT(google-explicit-constructor)

  // A name or path that it has beside others; nothing happens if it is empty or there already.
  void add(const std::string& path);

  std::vector<std::string> names;  // without folders; the first is the one to show
  std::vector<std::string> paths;  // absolute
};

// What is known of a process that has just started.
struct Started {
  std::string binary;                  // what /proc/self/exe is: links are followed
  std::string called;                  // as execve was called (AT_EXECFN): perhaps a link, perhaps a script
  std::vector<std::string> arguments;  // argv
  std::string comm;                    // /proc/self/comm, 15 bytes of it
};

// The script, if there is one, is what the user takes for the program; then the name by which it was called (redis-server,
// a link to redis-check-rdb), argv[0] (exec -a), and the names that the kernel knows.
[[nodiscard]] Program program_of(const Started& started);
[[nodiscard]] Program this_program();

}  // namespace mtcp::intercept
