// For a program whose tests need network namespaces.
#pragma once

#include <stdio.h>
#include <unistd.h>

namespace mtcp::test {

// Shown as SKIP by meson.
__attribute__((constructor)) inline void need_root() {
  if (geteuid() == 0) return;
  fputs("skipped: network namespaces need root\n", stderr);
  _exit(77);
}

}  // namespace mtcp::test
