// Files that sendfile has sent before, in this process's memory: what is sent of them again is not copied into packets, which refer
// to it (stack/packet/external.hh). A mapping is read by the kernel alone.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "stack/base/time.hh"
#include "stack/packet/external.hh"

namespace mtcp::intercept {

class Kernel;

class MappedFiles {
 public:
  MappedFiles() = default;
  MappedFiles(const MappedFiles&) = delete;
  MappedFiles& operator=(const MappedFiles&) = delete;
  ~MappedFiles();

  // Less of a file is sooner copied than found here.
  static constexpr std::size_t kLeast = 4096;  // bytes

  struct Piece {
    stack::ExternalMemory* memory = nullptr;  // null: it has to be read
    std::uint32_t offset = 0;
    std::size_t bytes = 0;
    bool last = false;  // the file ends with it
  };
  // The file's bytes from `offset` on, at most `bytes`. They are read from the disk first, if need be.
  Piece find(Kernel& kernel, int fd, off_t offset, std::size_t bytes, stack::Time now);
  // Gives up what has not been used for a while, so that nobody misses the space of a deleted file, or can't unmount its file system.
  void drop_idle(stack::Time now) {
    if (mapped_ != 0 && now >= next_look_) look_for_idle(now);
  }

 private:
  static constexpr std::size_t kWindow = 2 << 20;  // bytes of a file in one mapping
  static constexpr std::size_t kChunk = 65536;     // are looked up at a time
  static constexpr std::size_t kSets = 16, kWays = 4;

  struct Window final : stack::ExternalMemory {
    void read(std::uint32_t offset, std::span<std::byte> out) const override;
    dev_t device = 0;
    ino_t file = 0;
    timespec changed{};           // the file's ctime
    off_t start = 0;
    std::size_t length = 0;       // of the mapping; 0: there is none
    std::size_t seen = 0;         // before there is one: it has been sent up to here
    std::uint32_t chunks = 0;     // a bit for each that is there
    bool refused = false;         // it can't be mapped
    stack::Time used{};           // last; zero: a free one
  };

  Window* window_for(const struct stat& st, off_t start, stack::Time now);
  bool map(Window& w, int fd, off_t size);
  static bool look_up(Window& w, std::size_t from, std::size_t to);
  void forget(Window& w);
  void look_for_idle(stack::Time now);

  std::array<Window, kSets * kWays> windows_;
  std::size_t mapped_ = 0;
  stack::Time next_look_{};
};

}  // namespace mtcp::intercept
