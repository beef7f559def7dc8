// The engine, for the programs that lie beside it.
#pragma once

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "intercept/engine.hh"

namespace mtcp {

// Null, and a line on the standard error, if it is not there.
inline void* open_engine(const char* program) {
  char path[PATH_MAX + sizeof "libmtcp_engine.so"];
  const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
  if (n <= 0) return nullptr;
  path[n] = '\0';
  char* const end = strrchr(path, '/');
  snprintf(end + 1, static_cast<size_t>(path + sizeof path - end) - 1, "%s", intercept::kEngineFileName);
  void* engine = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (engine == nullptr) fprintf(stderr, "%s: %s\n", program, dlerror());
  return engine;
}

inline constexpr int kNoEngine = 70;  // EX_SOFTWARE

}  // namespace mtcp
