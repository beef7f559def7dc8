#include "stack/port/dpdk/interface/interface_lock.hh"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <string_view>
#include <vector>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr int kTries = 100;
constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 10'000'000};
// Below 0x600, where no frame's type lies, and no number of the kernel's own (linux/if_ether.h): nothing is received.
constexpr unsigned kMark = 0x01f1;
constexpr unsigned kGroups = 0xc000;  // of each interface one, by its index

// linux/if_packet.h of Linux 5.11; older headers lack it.
struct FanoutArguments {
  std::uint16_t id, type_flags;
  std::uint32_t max_num_members;
};

// The sockets with our mark on an interface, by inode; the caller's own among them.
std::vector<unsigned long> marked(unsigned interface) {
  std::vector<unsigned long> inodes;
  FILE* f = fopen("/proc/net/packet", "re");
  if (f == nullptr) return inodes;
  char line[256];
  while (fgets(line, sizeof line, f) != nullptr) {
    unsigned protocol = 0, index = 0;
    unsigned long inode = 0;
    if (sscanf(line, "%*s %*d %*d %x %u %*d %*u %*u %lu", &protocol, &index, &inode) == 3 && protocol == kMark &&
        index == interface)
      inodes.push_back(inode);
  }
  fclose(f);
  return inodes;
}

unsigned long inode_of(int fd) {
  struct stat s {};
  return system_call(SYS_fstat, fd, reinterpret_cast<long>(&s)) == 0 ? s.st_ino : 0;
}

bool has_socket(const char* pid, unsigned long inode) {
  const std::string folder = std::string("/proc/") + pid + "/fd";
  const std::string wanted = "socket:[" + std::to_string(inode) + "]";
  DIR* dir = opendir(folder.c_str());
  if (dir == nullptr) return false;
  bool found = false;
  char target[64];
  while (const dirent* e = found ? nullptr : readdir(dir)) {
    const std::string path = folder + "/" + e->d_name;
    const long n = system_call(SYS_readlinkat, AT_FDCWD, reinterpret_cast<long>(path.c_str()),
                               reinterpret_cast<long>(target), sizeof target);
    found = n > 0 && wanted == std::string_view(target, static_cast<std::size_t>(n));
  }
  closedir(dir);
  return found;
}

// "process 17 or its children", or as much of it as can be known: the first in /proc that has the lock.
std::string holder(unsigned interface) {
  const std::vector<unsigned long> inodes = marked(interface);
  DIR* processes = inodes.empty() ? nullptr : opendir("/proc");
  if (processes == nullptr) return "another process";
  std::string who = "another process";
  while (const dirent* e = readdir(processes)) {
    if (e->d_name[0] < '0' || e->d_name[0] > '9' || !has_socket(e->d_name, inodes.front())) continue;
    who = std::string("process ") + e->d_name + " or its children";
    break;
  }
  closedir(processes);
  return who;
}

// 0 or errno; EADDRINUSE if another program has it.
int try_to_take(unsigned interface, int& fd) {
  fd = static_cast<int>(system_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd < 0) return errno;
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(kMark);
  address.sll_ifindex = static_cast<int>(interface);
  const FanoutArguments alone{static_cast<std::uint16_t>(kGroups | (interface & ~kGroups)), PACKET_FANOUT_HASH, 1};
  int error = 0;
  if (system_call(SYS_bind, fd, reinterpret_cast<long>(&address), sizeof address) != 0) {
    error = errno;
  } else if (!set_option(static_cast<int>(fd), SOL_PACKET, PACKET_FANOUT, alone)) {
    error = errno;
    if (error == ENOSPC) error = EADDRINUSE;
    // A kernel before 5.11: the mark alone then, which leaves a moment in which two may take it.
    if (error == EINVAL) {
      error = 0;
      for (const unsigned long inode : marked(interface))
        if (inode != inode_of(fd)) error = EADDRINUSE;
    }
  }
  if (error == 0) return 0;
  system_call(SYS_close, fd);
  fd = -1;
  return error;
}

}  // namespace

bool InterfaceLock::take(const std::string& interface, std::string& message) {
  const unsigned index = if_nametoindex(interface.c_str());
  int error = index == 0 ? ENODEV : 0;
  for (int i = 0; i < kTries && index != 0; ++i) {
    error = try_to_take(index, fd_);
    if (error != EADDRINUSE) break;
    system_call(SYS_nanosleep, reinterpret_cast<long>(&kPause), 0);
  }
  if (error == 0) {
    fd_ = move_high(fd_);
    return true;
  }
  in_use_ = error == EADDRINUSE;
  message = in_use_ ? interface + " is in use by another program on mtcp (" + holder(index) +
                          "); only programs of the same user with the same addresses share it"
                    : "cannot tell whether " + interface + " is in use: " + strerror(error);
  return false;
}

void InterfaceLock::release() {
  if (fd_ >= 0) mtcp_dpdk_close(fd_);
  fd_ = -1;
}

}  // namespace mtcp::stack::dpdk
