#include "preload/go_runtime.hh"

#include <elf.h>
#include <link.h>
#include <string.h>

#include "preload/notice.hh"
#include "preload/process.hh"

namespace mtcp::preload {
namespace {

struct Found {
  bool go;
  const char* name;  // of the library; empty: the program itself
};

// Go's linker leaves a build ID in a note of its own name.
bool is_go_note(const char* at, size_t size) {
  constexpr ElfW(Word) kBuildId = 4;
  const auto round = [](size_t n) { return (n + 3) & ~size_t{3}; };
  while (size >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) note;
    memcpy(&note, at, sizeof note);
    const size_t whole = sizeof note + round(note.n_namesz) + round(note.n_descsz);
    if (whole > size) return false;
    if (note.n_type == kBuildId && note.n_namesz == 4 && memcmp(at + sizeof note, "Go\0", 4) == 0) return true;
    at += whole;
    size -= whole;
  }
  return false;
}

int look(dl_phdr_info* info, size_t, void* result) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    if (!is_go_note(reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr), header.p_memsz)) continue;
    *static_cast<Found*>(result) = {.go = true, .name = info->dlpi_name};
    return 1;
  }
  return 0;
}

// A Go program may never call anything of the shim's.
__attribute__((constructor)) void warn_at_start() { warn_of_go(); }

}  // namespace

void warn_of_go() {
  static bool told;
  if (told || !has_configuration()) return;
  Found found{};
  dl_iterate_phdr(look, &found);
  if (!found.go) return;
  told = true;
  if (!warnings_are_wanted()) return;
  const bool library = found.name != nullptr && *found.name != '\0';
  say("mtcp: %s is written in Go, which makes its system calls without libc: its sockets are the kernel's, those that "
      "listen on the wildcard address, too\n",
      library ? found.name : "this program");
}

}  // namespace mtcp::preload
