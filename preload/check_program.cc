// mtcp-check: asks the engine beside it what it thinks of a configuration, and what it is (intercept/check.hh). For mtcp-run
// and mtcp-stat; it takes no socket and opens no device.
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "intercept/check.hh"
#include "intercept/engine.hh"

namespace {

using namespace mtcp::intercept;

constexpr int kFailed = 70;  // EX_SOFTWARE: no engine to ask

void* open_engine() {
  char path[PATH_MAX + sizeof "libmtcp_engine.so"];
  const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
  if (n <= 0) return nullptr;
  path[n] = '\0';
  char* const end = strrchr(path, '/');
  snprintf(end + 1, static_cast<size_t>(path + sizeof path - end) - 1, "%s", kEngineFileName);
  void* engine = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (engine == nullptr) fprintf(stderr, "mtcp-check: %s\n", dlerror());
  return engine;
}

}  // namespace

int main(int argc, char** argv) {
  const bool version = argc == 2 && strcmp(argv[1], "--version") == 0;
  if (argc != 2 || (argv[1][0] == '-' && !version)) {
    fprintf(stderr, "usage: mtcp-check FILE | --version\n");
    return 2;
  }
  void* engine = open_engine();
  if (engine == nullptr) return kFailed;
  if (version) {
    const auto say = reinterpret_cast<EngineVersion>(dlsym(engine, kEngineVersionName));
    if (say == nullptr) return kFailed;
    printf("%s\n", say());
    return 0;
  }
  const auto check = reinterpret_cast<EngineCheck>(dlsym(engine, kEngineCheckName));
  if (check == nullptr) return kFailed;
  const CheckListener listener{
      .context = nullptr,
      .problem = [](void*, const char* text) { fprintf(stderr, "%s\n", text); },
      .fact = [](void*, const char* name, const char* value) { printf("%s: %s\n", name, value); }};
  return check(argv[1], &listener);
}
