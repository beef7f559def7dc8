#include "scripts/dump/pcapng.hh"

#include <errno.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace mtcp::dump {
namespace {

constexpr std::size_t kFull = 1 << 18;  // bytes after which the buffer is written
constexpr std::uint16_t kEthernet = 1;  // LINKTYPE_ETHERNET
constexpr std::size_t kLongest = 1024;  // of an option's text

enum Block : std::uint32_t { kSection = 0x0a0d0d0a, kInterface = 1, kStatistics = 5, kPacket = 6 };
enum Option : std::uint16_t {
  kEnd = 0,
  kOs = 3,            // section
  kApplication = 4,
  kName = 2,          // interface
  kDescription = 3,
  kResolution = 9,
  kFilter = 11,
  kFlags = 2,         // packet
  kReceived = 4,      // statistics
  kDropped = 5,
};

}  // namespace

void PcapngWriter::word(std::uint32_t v) { bytes(&v, sizeof v); }

void PcapngWriter::bytes(const void* p, std::size_t n) {
  const auto* from = static_cast<const std::byte*>(p);
  buffer_.insert(buffer_.end(), from, from + n);
  buffer_.resize((buffer_.size() + 3) / 4 * 4);
}

void PcapngWriter::option(std::uint16_t code, const void* p, std::size_t n) {
  n = std::min(n, kLongest);
  const std::uint16_t head[] = {code, static_cast<std::uint16_t>(n)};
  bytes(head, sizeof head);
  bytes(p, n);
}

void PcapngWriter::begin_block(std::uint32_t type) {
  block_ = buffer_.size();
  word(type);
  word(0);
}

void PcapngWriter::end_block() {
  const auto length = static_cast<std::uint32_t>(buffer_.size() - block_ + sizeof(std::uint32_t));
  std::memcpy(buffer_.data() + block_ + sizeof length, &length, sizeof length);
  word(length);
  if (buffer_.size() >= kFull) (void)flush();
}

void PcapngWriter::times(std::uint64_t time) {
  word(static_cast<std::uint32_t>(time >> 32));
  word(static_cast<std::uint32_t>(time));
}

void PcapngWriter::begin(std::string_view program) {
  begin_block(kSection);
  word(0x1a2b3c4d);
  const std::uint16_t version[] = {1, 0};
  bytes(version, sizeof version);
  times(UINT64_MAX);  // how long the section is, is not known
  utsname system{};
  if (uname(&system) == 0) option(kOs, std::string(system.sysname) + " " + system.release);
  option(kApplication, program);
  option(kEnd, nullptr, 0);
  end_block();
}

void PcapngWriter::begin_interface(const Interface& interface) {
  begin_block(kInterface);
  const std::uint16_t type[] = {kEthernet, 0};
  bytes(type, sizeof type);
  word(interface.snap_length);
  option(kName, interface.name);
  option(kDescription, interface.description);
  const std::uint8_t nanoseconds = 9;
  option(kResolution, &nanoseconds, sizeof nanoseconds);
  if (!interface.filter.empty()) option(kFilter, std::string(1, '\0') + interface.filter);
  option(kEnd, nullptr, 0);
  end_block();
}

void PcapngWriter::packet(const PacketHead& head, std::span<const std::byte> data) {
  begin_block(kPacket);
  word(head.interface);
  times(head.time);
  word(static_cast<std::uint32_t>(data.size()));
  word(head.length);
  bytes(data.data(), data.size());
  const std::uint32_t flags = head.outbound ? 2 : 1;
  option(kFlags, &flags, sizeof flags);
  option(kEnd, nullptr, 0);
  end_block();
}

void PcapngWriter::end_interface(std::uint32_t interface, std::uint64_t time, std::uint64_t received, std::uint64_t dropped) {
  begin_block(kStatistics);
  word(interface);
  times(time);
  option(kReceived, &received, sizeof received);
  option(kDropped, &dropped, sizeof dropped);
  option(kEnd, nullptr, 0);
  end_block();
}

bool PcapngWriter::flush() {
  for (std::size_t written = 0; written < buffer_.size() && error_ == 0;) {
    const ssize_t n = ::write(fd_, buffer_.data() + written, buffer_.size() - written);
    if (n >= 0) written += static_cast<std::size_t>(n);
    else if (errno != EINTR) error_ = errno;
  }
  buffer_.clear();
  return error_ == 0;
}

}  // namespace mtcp::dump
