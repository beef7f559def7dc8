#include "scripts/dump/find.hh"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <map>
#include <string_view>

#include "intercept/background/dump_protocol.hh"

namespace mtcp::dump {
namespace {

constexpr std::string_view kName = "mtcp-stat-";

std::string namespace_file(const std::string& process) { return "/proc/" + process + "/ns/net"; }

// 0: we may not know it.
ino_t network_of(const std::string& process) {
  struct stat s {};
  return stat(namespace_file(process).c_str(), &s) == 0 ? s.st_ino : 0;
}

socklen_t put_name(sockaddr_un& address, std::string_view name) {
  address = {};
  address.sun_family = AF_UNIX;
  const std::size_t n = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), n);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + n);
}

// From a name by which the process knows what we want.
int connect_to(std::string_view name) {
  // A process that is stopped may have a full queue: it is not waited for.
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  std::uint64_t unique = 0;
  (void)getrandom(&unique, sizeof unique, 0);
  sockaddr_un own, its;
  const socklen_t own_length = put_name(own, std::string(intercept::kDumpName) + std::to_string(unique));
  const socklen_t its_length = put_name(its, name);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&own), own_length) == 0 && connect(fd, reinterpret_cast<const sockaddr*>(&its), its_length) == 0 &&
      fcntl(fd, F_SETFL, 0) == 0)
    return fd;
  close(fd);
  return -1;
}

std::string more_rights(const char* capability) {
  return geteuid() != 0 ? "run as root" : std::string("this root lacks ") + capability + " over it: run it on the host";
}

}  // namespace

void Finder::look_here(pid_t pid, const std::function<void(const Socket&)>& found) {
  std::ifstream table("/proc/self/net/unix");
  for (std::string line; std::getline(table, line);) {
    const std::size_t at = line.find('@');
    if (at == std::string::npos || line.compare(at + 1, kName.size(), kName) != 0) continue;
    const std::string name = line.substr(at + 1);
    if (seen_.contains(name)) continue;
    const int fd = connect_to(name);
    if (fd < 0) continue;  // it is full, or gone
    seen_.insert(name);
    ucred owner{};
    socklen_t length = sizeof owner;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &length) == 0 && (pid == 0 || owner.pid == pid)) found({fd, owner.pid});
    else close(fd);
  }
}

std::string Finder::look_in_namespace_of(pid_t member, pid_t pid, const std::function<void(const Socket&)>& found) {
  const std::string process = std::to_string(member);
  const ino_t there = network_of(process);
  if (there == network_of("self")) return look_here(pid, found), std::string();
  const int home = open(namespace_file("self").c_str(), O_RDONLY | O_CLOEXEC);
  const int target = open(namespace_file(process).c_str(), O_RDONLY | O_CLOEXEC);
  std::string problem;
  if (target < 0 && errno == ENOENT) problem = "no process " + process;
  else if (target < 0) problem = "process " + process + " is another user's: " + more_rights("CAP_SYS_PTRACE");
  else if (setns(target, CLONE_NEWNET) != 0) problem = "process " + process + " is in another network namespace: " + more_rights("CAP_SYS_ADMIN");
  if (target >= 0) close(target);
  if (problem.empty()) {
    look_here(pid, found);
    (void)setns(home, CLONE_NEWNET);
  }
  close(home);
  return problem;
}

std::string Finder::look(pid_t pid, const std::function<void(const Socket&)>& found) {
  if (pid != 0) return look_in_namespace_of(pid, pid, found);
  std::map<ino_t, pid_t> networks;
  DIR* directory = opendir("/proc");
  if (directory == nullptr) return "no /proc";
  while (const dirent* entry = readdir(directory)) {
    const pid_t member = atoi(entry->d_name);
    if (member <= 0) continue;
    if (const ino_t network = network_of(entry->d_name); network != 0) networks.emplace(network, member);
  }
  closedir(directory);
  for (const auto& [network, member] : networks) (void)look_in_namespace_of(member, 0, found);
  return {};
}

}  // namespace mtcp::dump
