// What the kernel's epoll sets hold, from /proc: needed once, when a set gets its first socket of the stack.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cinttypes>
#include <memory>
#include <string_view>

#include "intercept/waiting/epoll.hh"

namespace mtcp::intercept {
namespace {

struct CloseFile {
  void operator()(FILE* f) const { fclose(f); }
};
struct CloseDirectory {
  void operator()(DIR* d) const { closedir(d); }
};

// Calls visit(fd, event) for each descriptor in the set.
template <typename Visit>
void for_each_member(int ep, Visit visit) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ep);
  const std::unique_ptr<FILE, CloseFile> file(fopen(path, "re"));
  if (file == nullptr) return;
  char line[256];
  while (fgets(line, sizeof line, file.get()) != nullptr) {
    int fd = -1;
    unsigned events = 0;
    std::uint64_t data = 0;
    if (sscanf(line, "tfd: %d events: %x data: %" SCNx64, &fd, &events, &data) != 3) continue;
    epoll_event e{};
    e.events = events;
    e.data.u64 = data;
    visit(fd, e);
  }
}

bool is_epoll(const char* name) {
  char path[64], target[64];
  snprintf(path, sizeof path, "/proc/self/fd/%.20s", name);
  const ssize_t n = readlink(path, target, sizeof target);
  return n > 0 && std::string_view(target, static_cast<std::size_t>(n)) == "anon_inode:[eventpoll]";
}

}  // namespace

std::uint32_t kernel_members_of(int ep) {
  std::uint32_t count = 0;
  for_each_member(ep, [&](int, const epoll_event&) { ++count; });
  return count;
}

std::vector<KernelMembership> memberships_of(int fd) {
  std::vector<KernelMembership> found;
  const std::unique_ptr<DIR, CloseDirectory> directory(opendir("/proc/self/fd"));
  if (directory == nullptr) return found;
  while (const dirent* entry = readdir(directory.get())) {
    if (!is_epoll(entry->d_name)) continue;
    const int ep = atoi(entry->d_name);
    for_each_member(ep, [&](int member, const epoll_event& e) {
      if (member == fd) found.push_back({ep, e});
    });
  }
  return found;
}

}  // namespace mtcp::intercept
