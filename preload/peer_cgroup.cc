#include "preload/peer_cgroup.hh"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace mtcp {
namespace {

#ifndef SO_PEERPIDFD
constexpr int SO_PEERPIDFD = 77;  // Linux 6.5
#endif

// "0::/user.slice": its number, controllers or name, path.
std::string_view path_of(std::string_view line) {
  const std::size_t first = line.find(':');
  const std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
  if (second == line.npos) return {};
  const std::string_view which = line.substr(first + 1, second - first - 1);
  return which.empty() || which == "name=systemd" ? line.substr(second + 1) : std::string_view{};
}

bool is_at_or_below(std::string_view path, std::string_view group) {
  while (group.ends_with('/')) group.remove_suffix(1);
  return path.starts_with(group) && (path.size() == group.size() || path[group.size()] == '/');
}

// A number may belong to another process by now; a descriptor of the process tells.
bool is_alive(int pidfd) { return syscall(SYS_pidfd_send_signal, pidfd, 0, nullptr, 0) == 0 || errno == EPERM; }

}  // namespace

bool is_in_cgroup(std::string_view text, const std::vector<std::string>& allowed) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view path = path_of(text.substr(0, end));
    if (!path.empty() && std::ranges::any_of(allowed, [&](const std::string& g) { return is_at_or_below(path, g); })) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

bool peer_is_in_cgroup(int fd, pid_t peer, const std::vector<std::string>& allowed) {
  if (allowed.empty() || peer <= 0) return false;  // 0: of a PID namespace that this one does not see
  int pidfd = -1;
  socklen_t size = sizeof pidfd;
  const bool pinned = getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0;
  if (!pinned && errno != ENOPROTOOPT) return false;
  std::array<char, 16384> text;
  const int file = open(("/proc/" + std::to_string(peer) + "/cgroup").c_str(), O_RDONLY | O_CLOEXEC);
  const ssize_t n = file >= 0 ? read(file, text.data(), text.size()) : -1;
  if (file >= 0) close(file);
  const bool is_in = n > 0 && is_in_cgroup({text.data(), static_cast<std::size_t>(n)}, allowed);
  const bool same = !pinned || is_alive(pidfd);
  if (pinned) close(pidfd);
  return is_in && same;
}

}  // namespace mtcp
