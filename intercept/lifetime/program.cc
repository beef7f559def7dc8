#include "intercept/lifetime/program.hh"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace mtcp::intercept {
namespace {

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string real_path(const std::string& path) {
  char* const found = ::realpath(path.c_str(), nullptr);
  std::string result = found != nullptr ? found : "";
  ::free(found);
  return result;
}

bool is_interpreter(std::string_view name) {
  static constexpr std::array<std::string_view, 12> kNames{"python", "perl", "ruby", "node", "php",  "lua",
                                                           "bash",   "sh",   "dash", "zsh",  "java", "tclsh"};
  // python3.11, php8.2, lua5.4
  while (!name.empty() && std::string_view("0123456789.").find(name.back()) != name.npos) name.remove_suffix(1);
  return std::ranges::find(kNames, name) != kNames.end();
}

// `python3 -W error server.py 8000`, `python3 -m http.server`, `java -jar server.jar`: the first argument that is a file,
// or a module.
std::string script_of(const Started& started) {
  if (!is_interpreter(base_name(started.binary))) return {};
  for (std::size_t i = 1; i < started.arguments.size(); ++i) {
    const std::string& word = started.arguments[i];
    if (word == "-c" || word == "-e") return {};  // the program is in the next argument
    if (word == "-m" && base_name(started.binary).starts_with("python"))
      return i + 1 < started.arguments.size() ? started.arguments[i + 1] : "";
    if (!word.starts_with('-') && ::access(word.c_str(), F_OK) == 0) return word;
  }
  return {};
}

// A small file of /proc, whole.
std::string contents(const char* path) {
  std::string text;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  std::array<char, 4096> part;
  for (ssize_t n = 0; text.size() < (1U << 16) && (n = ::read(fd, part.data(), part.size())) > 0;)
    text.append(part.data(), static_cast<std::size_t>(n));
  ::close(fd);
  return text;
}

}  // namespace

Program::Program(std::string path) { add(path); }

void Program::add(const std::string& path) {
  const std::string name = base_name(path);
  if (!name.empty() && std::ranges::find(names, name) == names.end()) names.push_back(name);
  if (path.starts_with('/') && std::ranges::find(paths, path) == paths.end()) paths.push_back(path);
}

Program program_of(const Started& started) {
  Program program;
  if (const std::string script = script_of(started); !script.empty()) {
    program.add(script);
    program.add(real_path(script));
  }
  program.add(started.called);
  if (started.called.find('/') != std::string::npos && !started.called.starts_with('/'))
    program.add(real_path(started.called));  // ./server
  // A login shell's begins with a hyphen; one that the program has written over is a sentence ("nginx: master process").
  if (!started.arguments.empty()) {
    std::string first = started.arguments.front();
    if (first.starts_with('-')) first.erase(0, 1);
    program.add(first.substr(0, first.find_first_of(": ")));
  }
  program.add(started.comm);
  program.add(started.binary);
  return program;
}

Program this_program() {
  Started started;
  char path[4096];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
  if (n > 0) started.binary.assign(path, static_cast<std::size_t>(n));
  if (const auto called = ::getauxval(AT_EXECFN); called != 0)
    started.called = reinterpret_cast<const char*>(called);
  const std::string line = contents("/proc/self/cmdline");
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t end = std::min(line.find('\0', at), line.size());
    started.arguments.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  started.comm = contents("/proc/self/comm");
  if (started.comm.ends_with('\n')) started.comm.pop_back();
  return program_of(started);
}

}  // namespace mtcp::intercept
