// A stack whose packets are captured: the connection to its process, and the ring that both have.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "scripts/dump/pcapng.hh"
#include "stack/capture/filter.hh"
#include "stack/capture/ring.hh"

namespace mtcp::dump {

struct Wanted {
  std::uint32_t snap_length = 262144;
  std::uint32_t ring_size = 4 << 20;  // bytes, a power of two
  std::string filter;                 // as the user wrote it
  std::vector<stack::FilterInstruction> program;
};

class Source {
 public:
  // Takes `fd`. `problem` is empty if the stack captures from now on.
  Source(int fd, pid_t pid, const Wanted& wanted, std::string& problem);
  ~Source();
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  // Its block in the file; `number` is that of its packets from now on.
  void introduce(PcapngWriter& out, std::uint32_t number);
  // Writes what the ring has, `most` packets at most; returns how many. What a process has put there that is none ends the source.
  std::uint64_t drain(PcapngWriter& out, std::uint64_t most);
  // Its totals, to the file and to the caller's.
  void conclude(PcapngWriter& out, std::uint64_t& dropped) const;

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] int process_fd() const { return process_fd_; }  // readable when the process has ended; -1: not known
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool broken() const { return broken_; }

 private:
  std::string ask(const Wanted& wanted);
  std::string map_ring(int memory, std::uint64_t ring_size);
  bool read_record(std::uint64_t head, stack::CaptureRecord& record) const;

  int fd_;
  int process_fd_ = -1;
  pid_t pid_;
  std::string name_, description_, filter_;
  std::uint32_t snap_length_, number_ = 0;
  std::int64_t clock_offset_ = 0;
  stack::CaptureHeader* header_ = nullptr;
  std::span<const std::byte> ring_;
  std::uint64_t tail_ = 0;
  bool broken_ = false;
};

}  // namespace mtcp::dump
