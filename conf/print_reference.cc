// Writes the reference to a file: conf/mtcp.toml is made by it, and a test compares.
#include <stdio.h>

#include "conf/reference.hh"

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FILE\n", argv[0]);
    return 2;
  }
  FILE* f = fopen(argv[1], "w");
  if (f == nullptr) {
    perror(argv[1]);
    return 1;
  }
  const std::string text = mtcp::conf::reference();
  const bool written = fwrite(text.data(), 1, text.size(), f) == text.size();
  if (fclose(f) != 0 || !written) {
    perror(argv[1]);
    return 1;
  }
  return 0;
}
