#include "intercept/sockets/mapped_files.hh"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "intercept/kernel.hh"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif

namespace mtcp::intercept {
namespace {

constexpr stack::Duration kIdle = stack::seconds(2), kLook = stack::milliseconds(500);
constexpr long kXfs = 0x58465342;

// File systems whose files, mapped, are what is read from them: not those of other machines or programs.
bool is_local(int fd) {
  struct statfs s {};
  if (::fstatfs(fd, &s) != 0) return false;
  switch (static_cast<long>(s.f_type)) {
    case EXT4_SUPER_MAGIC:
    case kXfs:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case SQUASHFS_MAGIC:
      return true;
    default:
      return false;
  }
}

bool may_read(Kernel& kernel, int fd) {
  const int flags = kernel.fcntl(fd, F_GETFL, 0);
  return flags >= 0 && (flags & O_PATH) == 0 && (flags & O_ACCMODE) != O_WRONLY;
}

}  // namespace

// To copy it here would be a SIGBUS where the file was cut off, so the kernel does it.
void MappedFiles::Window::read(std::uint32_t offset, std::span<std::byte> out) const {
  std::ranges::fill(out, std::byte{0});
  const int fd = ::memfd_create("mtcp", MFD_CLOEXEC);
  if (fd < 0) return;
  const ssize_t there = ::pwrite(fd, base + offset, out.size(), 0);
  if (there > 0) (void)!::pread(fd, out.data(), static_cast<std::size_t>(there), 0);
  ::close(fd);
}

MappedFiles::~MappedFiles() {
  for (Window& w : windows_) forget(w);
}

void MappedFiles::forget(Window& w) {
  if (w.length != 0) {
    ::munmap(const_cast<std::byte*>(w.base), w.length);
    --mapped_;
  }
  w.base = nullptr;
  w.length = w.seen = 0;
  w.chunks = 0;
  w.refused = false;
  w.used = {};
}

// Null: all windows that it could have are referred to. A file that has been changed is another one: in an overlay, one that is written to becomes a
// copy of what had been mapped, with the same number.
MappedFiles::Window* MappedFiles::window_for(const struct stat& st, off_t start, stack::Time now) {
  const std::uint64_t key = (static_cast<std::uint64_t>(st.st_ino) * 31 + st.st_dev) * 31 + static_cast<std::uint64_t>(start) / kWindow;
  const auto is_it = [&](const Window& w) {
    return w.used != stack::Time{} && w.device == st.st_dev && w.file == st.st_ino && w.start == start && w.changed.tv_sec == st.st_ctim.tv_sec &&
           w.changed.tv_nsec == st.st_ctim.tv_nsec;
  };
  Window* const set = &windows_[(key * 0x9e3779b97f4a7c15) >> 60 << 2];
  Window* oldest = nullptr;
  for (Window* w = set; w != set + kWays; ++w) {
    if (is_it(*w)) return w->used = now, w;
    if (w->references == 0 && (oldest == nullptr || w->used < oldest->used)) oldest = w;
  }
  if (oldest == nullptr) return nullptr;
  forget(*oldest);
  oldest->device = st.st_dev;
  oldest->file = st.st_ino;
  oldest->changed = st.st_ctim;
  oldest->start = start;
  oldest->used = now;
  return oldest;
}

bool MappedFiles::map(Window& w, int fd, off_t size) {
  w.refused = !is_local(fd);
  if (w.refused) return false;
  const auto length = std::min(kWindow, static_cast<std::size_t>(size - w.start));
  void* const at = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, w.start);
  w.refused = at == MAP_FAILED;
  if (w.refused) return false;
  (void)::madvise(at, length, MADV_DONTFORK);  // a child has no use for it, and would keep the file
  w.base = static_cast<const std::byte*>(at);
  w.length = length;
  ++mapped_;
  return true;
}

// The pages from `from` to `to` are there when this returns true: sending does not wait for the disk.
bool MappedFiles::look_up(Window& w, std::size_t from, std::size_t to) {
  for (std::size_t i = from / kChunk; i * kChunk < to; ++i) {
    if ((w.chunks >> i & 1) != 0) continue;
    const std::size_t bytes = std::min(kChunk, w.length - i * kChunk);
    if (::madvise(const_cast<std::byte*>(w.base) + i * kChunk, bytes, MADV_POPULATE_READ) != 0) return false;
    w.chunks |= 1U << i;
  }
  return true;
}

MappedFiles::Piece MappedFiles::find(Kernel& kernel, int fd, off_t offset, std::size_t bytes, stack::Time now) {
  drop_idle(now);
  struct stat st {};
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || offset >= st.st_size || !may_read(kernel, fd)) return {};
  const off_t start = offset / static_cast<off_t>(kWindow) * static_cast<off_t>(kWindow);
  const auto from = static_cast<std::size_t>(offset - start);
  bytes = std::min({bytes, static_cast<std::size_t>(st.st_size - offset), kWindow - from});
  if (bytes < kLeast) return {};
  Window* const w = window_for(st, start, now);
  if (w == nullptr || w->refused) return {};
  const std::size_t to = from + bytes;
  if (w->length == 0) {
    // What is sent once costs more to map than to copy.
    if (from >= w->seen) return w->seen = to, Piece{};
    if (!map(*w, fd, st.st_size)) return {};
  } else if (to > w->length) {  // the file has grown
    if (w->references == 0) forget(*w);
    return {};
  }
  if (!look_up(*w, from, to)) return w->refused = w->references == 0, Piece{};
  return {w, static_cast<std::uint32_t>(from), bytes, offset + static_cast<off_t>(bytes) == st.st_size};
}

void MappedFiles::look_for_idle(stack::Time now) {
  next_look_ = now + kLook;
  for (Window& w : windows_)
    if (w.length != 0 && w.references == 0 && now - w.used >= kIdle) forget(w);
}

}  // namespace mtcp::intercept
