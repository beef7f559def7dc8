#include "scripts/dump/source.hh"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "intercept/background/dump_protocol.hh"

namespace mtcp::dump {
namespace {

using intercept::DumpAnswer;
using intercept::DumpError;
using intercept::DumpRequest;
using stack::CaptureDirection;
using stack::CaptureRecord;

// Whatever it is, it must not reach the terminal as more than text.
template <std::size_t N>
std::string printable(const std::array<char, N>& text) {
  std::string out(text.data(), strnlen(text.data(), N));
  std::replace_if(out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e; }, '?');
  return out;
}

std::string why(DumpError error) {
  switch (error) {
    case DumpError::none: return {};
    case DumpError::refused: return "it gives packets to root only, or to its own user if it has never been another's: run as root";
    case DumpError::bad_request: return "it does not understand the question: is it of another version?";
    case DumpError::bad_filter: return "it refuses the filter: more than " + std::to_string(stack::PacketFilter::kMost) + " instructions?";
    case DumpError::too_many: return "others capture its packets already";
    case DumpError::no_memory: return "it has no memory for the buffer";
    case DumpError::no_stack: return "its stack has just ended";
  }
  return "an error that is not known here";
}

// The descriptor that has come with it, or -1.
int take_descriptor(msghdr& message) {
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (head == nullptr || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof(int))) return -1;
  int fd = -1;
  memcpy(&fd, CMSG_DATA(head), sizeof fd);
  return fd;
}

std::uint64_t time_of_day() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}

}  // namespace

Source::Source(int fd, pid_t pid, const Wanted& wanted, std::string& problem)
    : fd_(fd), pid_(pid), name_("process " + std::to_string(pid)), filter_(wanted.filter), snap_length_(wanted.snap_length) {
  if (pid > 0) process_fd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  problem = ask(wanted);
}

Source::~Source() {
  if (header_ != nullptr) munmap(header_, sizeof *header_ + ring_.size());
  if (process_fd_ >= 0) close(process_fd_);
  close(fd_);
}

std::string Source::ask(const Wanted& wanted) {
  const timeval patience{.tv_sec = 5, .tv_usec = 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  DumpRequest request{.snap_length = wanted.snap_length, .ring_size = wanted.ring_size, .instructions = static_cast<std::uint32_t>(wanted.program.size())};
  iovec parts[] = {{&request, sizeof request}, {const_cast<stack::FilterInstruction*>(wanted.program.data()), wanted.program.size() * sizeof wanted.program[0]}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  if (sendmsg(fd_, &message, MSG_NOSIGNAL) < 0) return strerror(errno);

  DumpAnswer answer;
  iovec part{&answer, sizeof answer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
  if (n < 0) return errno == EAGAIN ? "it does not answer within 5 s: is it stopped?" : strerror(errno);
  const int memory = take_descriptor(message);
  std::string problem = n != ssize_t{sizeof answer} || answer.magic != intercept::kDumpMagic ? why(DumpError::bad_request) : why(answer.error);
  if (problem.empty()) problem = map_ring(memory, answer.ring_size);
  if (memory >= 0) close(memory);
  if (!problem.empty()) return problem;
  const std::string program = printable(answer.program);
  name_ = program + "[" + std::to_string(pid_) + "] stack " + std::to_string(answer.stack);
  description_ = "stack " + std::to_string(answer.stack) + " of process " + std::to_string(pid_) + " (" + program + ") on " + printable(answer.device);
  clock_offset_ = answer.clock_offset;
  return {};
}

// It must be as large as it is said to be, and remain so.
std::string Source::map_ring(int memory, std::uint64_t ring_size) {
  const std::string broken = "its buffer is none";
  struct stat s {};
  const int seals = fcntl(memory, F_GET_SEALS);
  if (ring_size < stack::kLeastCaptureRing || ring_size > stack::kMostCaptureRing || (ring_size & (ring_size - 1)) != 0 || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0 || fstat(memory, &s) != 0 || static_cast<std::uint64_t>(s.st_size) != sizeof *header_ + ring_size)
    return broken;
  void* at = mmap(nullptr, sizeof *header_ + ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (at == MAP_FAILED) return strerror(errno);
  header_ = static_cast<stack::CaptureHeader*>(at);
  ring_ = {static_cast<const std::byte*>(at) + sizeof *header_, ring_size};
  return {};
}

void Source::introduce(PcapngWriter& out, std::uint32_t number) {
  number_ = number;
  out.begin_interface({.name = name_, .description = description_, .filter = filter_, .snap_length = snap_length_});
}

// A copy of the record at the tail, checked: the other process may change its own at any time.
bool Source::read_record(std::uint64_t head, CaptureRecord& record) const {
  const std::uint64_t at = tail_ & (ring_.size() - 1);
  memcpy(&record, ring_.data() + at, sizeof record);
  if (record.size < sizeof record || record.size % alignof(CaptureRecord) != 0 || record.size > head - tail_ || record.size > ring_.size() - at) return false;
  if (record.direction == CaptureDirection::none) return true;
  return (record.direction == CaptureDirection::in || record.direction == CaptureDirection::out) && record.captured <= record.size - sizeof record &&
         record.captured <= snap_length_ && record.captured <= record.length;
}

std::uint64_t Source::drain(PcapngWriter& out, std::uint64_t most) {
  std::uint64_t written = 0;
  const std::uint64_t head = header_->head.load(std::memory_order_acquire);
  broken_ = broken_ || head - tail_ > ring_.size() || head % alignof(CaptureRecord) != 0;
  while (!broken_ && tail_ != head && written < most) {
    CaptureRecord record;
    if (!read_record(head, record)) {
      broken_ = true;
      break;
    }
    if (record.direction != CaptureDirection::none) {
      const auto bytes = ring_.subspan((tail_ & (ring_.size() - 1)) + sizeof record, record.captured);
      out.packet({.interface = number_,
                  .time = static_cast<std::uint64_t>(record.time + clock_offset_),
                  .length = record.length,
                  .outbound = record.direction == CaptureDirection::out},
                 bytes);
      ++written;
    }
    tail_ += record.size;
    header_->tail.store(tail_, std::memory_order_release);
  }
  return written;
}

void Source::conclude(PcapngWriter& out, std::uint64_t& dropped) const {
  const std::uint64_t lost = header_->dropped.load(std::memory_order_relaxed);
  out.end_interface(number_, time_of_day(), header_->accepted.load(std::memory_order_relaxed), lost);
  dropped += lost;
}

}  // namespace mtcp::dump
