// Standard I/O over a socket of ours. libc's streams read and write from inside libc, past every interposed
// name, so such a stream is one with functions of its own; its descriptor is kept where fileno() looks for
// it.
#include <errno.h>
#include <stdlib.h>

#include "preload/calls.hh"
#include "preload/edge.hh"

namespace mtcp::preload {
namespace {

int descriptor(void* cookie) { return static_cast<int>(reinterpret_cast<long>(cookie)); }

ssize_t read_stream(void* cookie, char* p, size_t n) { return ours::read(descriptor(cookie), p, n); }
// 0 is how such a function reports an error.
ssize_t write_stream(void* cookie, const char* p, size_t n) {
  const ssize_t sent = ours::write(descriptor(cookie), p, n);
  return sent < 0 ? 0 : sent;
}
int close_stream(void* cookie) { return ours::close(descriptor(cookie)); }

}  // namespace

FILE* ours::fdopen(int fd, const char* mode) {
  FILE* f = fopencookie(reinterpret_cast<void*>(static_cast<long>(fd)), mode,
                        {.read = read_stream, .write = write_stream, .seek = nullptr, .close = close_stream});
  if (f != nullptr) f->_fileno = fd;
  return f;
}

// libc's makes a stream of its own for the occasion.
int ours::vdprintf(int fd, const char* format, va_list args) {
  char* text = nullptr;
  const int length = vasprintf(&text, format, args);
  if (length < 0) return -1;
  int done = 0;
  while (done < length) {
    const ssize_t sent = ours::write(fd, text + done, static_cast<size_t>(length - done));
    if (sent < 0) break;
    done += static_cast<int>(sent);
  }
  free(text);
  return done == length ? length : -1;
}
int ours::__vdprintf_chk(int fd, int, const char* format, va_list args) {
  return ours::vdprintf(fd, format, args);
}

int always::fileno(FILE* f) {
  if (f != nullptr && is_socket(f->_fileno)) return f->_fileno;
  return next.fileno(f);
}

}  // namespace mtcp::preload

#define EXPORTED extern "C" __attribute__((visibility("default")))
EXPORTED int mtcp_dprintf(int fd, const char* format, ...) __asm__("dprintf");
EXPORTED int mtcp_dprintf_chk(int fd, int flag, const char* format, ...) __asm__("__dprintf_chk");
extern "C" int mtcp_vdprintf(int fd, const char* format, va_list args) __asm__("vdprintf");
extern "C" int mtcp_vdprintf_chk(int fd, int flag, const char* format,
                                 va_list args) __asm__("__vdprintf_chk");

int mtcp_dprintf(int fd, const char* format, ...) {
  va_list args;
  va_start(args, format);
  const int n = mtcp_vdprintf(fd, format, args);
  va_end(args);
  return n;
}

int mtcp_dprintf_chk(int fd, int flag, const char* format, ...) {
  va_list args;
  va_start(args, format);
  const int n = mtcp_vdprintf_chk(fd, flag, format, args);
  va_end(args);
  return n;
}
