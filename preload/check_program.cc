// mtcp-check: asks the engine beside it what it thinks of a configuration, and what it is (intercept/check.hh). For mtcp-run
// and mtcp-stat; it takes no socket and opens no device.
#include <stdio.h>
#include <string.h>

#include "intercept/check.hh"
#include "preload/engine_library.hh"

namespace {

using namespace mtcp::intercept;
constexpr int kFailed = mtcp::kNoEngine;

}  // namespace

int main(int argc, char** argv) {
  const bool version = argc == 2 && strcmp(argv[1], "--version") == 0;
  if (argc != 2 || (argv[1][0] == '-' && !version)) {
    fprintf(stderr, "usage: mtcp-check FILE | --version\n");
    return 2;
  }
  void* engine = mtcp::open_engine("mtcp-check");
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
