// What the tests of devices share.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "stack/port/device.hh"
#include "tests/port/process.hh"

namespace mtcp::test {

inline stack::DeviceConfig config(const std::string& port, std::uint32_t packets = 4096) {
  stack::DeviceConfig c;
  c.port = port;
  c.packets = packets;
  return c;
}

inline std::unique_ptr<stack::Device> open_or_die(const stack::DeviceConfig& c) {
  std::string message;
  auto device = stack::open_device(c, message);
  if (!device) fprintf(stderr, "open_device(%s): %s\n", c.port.c_str(), message.c_str());
  EXPECT(device != nullptr);
  return device;
}

inline std::string refusal(const stack::DeviceConfig& c) {
  std::string message;
  return stack::open_device(c, message) == nullptr ? message : "it opened";
}

// A frame of type 0x88b5 (for experiments, IEEE 802) with `text` behind the header.
inline stack::Packet* make_frame(stack::PacketPool& pool, const std::string& text,
                                 stack::MacAddress to = stack::kBroadcastMac) {
  stack::Packet* p = nullptr;
  if (pool.alloc(&p, 1) != 1) return nullptr;
  memset(p->data, 0, 60);
  memcpy(p->data, to.bytes.data(), 6);
  p->data[6] = std::byte{2};
  p->data[12] = std::byte{0x88};
  p->data[13] = std::byte{0xb5};
  memcpy(p->data + 14, text.data(), text.size());
  p->len = static_cast<std::uint32_t>(std::max<std::size_t>(60, 14 + text.size()));
  return p;
}

inline bool has_text(stack::Packet& p, const std::string& text) {
  return p.len >= 14 + text.size() && p.data[12] == std::byte{0x88} && p.data[13] == std::byte{0xb5} &&
         memcmp(p.data + 14, text.data(), text.size()) == 0;
}

// Receives one burst; true if one of the frames has the text.
inline bool receive(stack::Port& port, const std::string& text) {
  port.service(now());
  stack::Packet* in[32];
  const std::size_t n = port.rx(in, 32);
  bool found = false;
  for (std::size_t i = 0; i < n; ++i) found |= has_text(*in[i], text);
  port.pool().free(in, n);
  return found;
}

inline bool send(stack::Port& port, const std::string& text) {
  port.service(now());
  stack::Packet* p = make_frame(port.pool(), text);
  if (p == nullptr) return false;
  if (port.tx(&p, 1) == 1) return true;
  port.pool().free(&p, 1);
  return false;
}

inline std::vector<int> descriptors() {
  std::vector<int> numbers;
  DIR* dir = opendir("/proc/self/fd");
  while (const dirent* e = readdir(dir))
    if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(dir)) numbers.push_back(atoi(e->d_name));
  closedir(dir);
  return numbers;
}

// All descriptors that are not in `before` have high numbers and O_CLOEXEC.
inline bool only_hidden_descriptors_since(const std::vector<int>& before) {
  for (const int fd : descriptors()) {
    if (std::find(before.begin(), before.end(), fd) != before.end()) continue;
    if (fd < 512 || (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) {
      fprintf(stderr, "descriptor %d\n", fd);
      return false;
    }
  }
  return true;
}

inline int threads() {
  int n = 0;
  DIR* dir = opendir("/proc/self/task");
  while (const dirent* e = readdir(dir)) n += e->d_name[0] != '.' ? 1 : 0;
  closedir(dir);
  return n;
}

// Seconds of CPU time of this process.
inline double cpu_time() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

// Sleeps on the port as a worker does, for `limit` at most. True if a descriptor woke it or packets were
// there already.
inline bool sleep_on(stack::Port& port, stack::Duration limit) {
  if (!port.arm()) {
    port.disarm();
    return true;
  }
  std::vector<pollfd> fds;
  for (const int fd : port.pollable()) fds.push_back({fd, POLLIN, 0});
  const auto rest =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::min(limit, port.max_sleep())).count();
  const timespec t{rest / 1'000'000'000, rest % 1'000'000'000};
  const int n = ppoll(fds.data(), fds.size(), &t, nullptr);
  port.disarm();
  return n > 0;
}

}  // namespace mtcp::test
