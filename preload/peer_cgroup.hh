// In which control group a process at the other end of a Unix socket is (cgroups(7)).
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace mtcp {

// Of the text of /proc/PID/cgroup: whether one of `allowed` ("/system.slice/nginx.service") is its group in the unified
// hierarchy, or in systemd's, or a group above that.
[[nodiscard]] bool is_in_cgroup(std::string_view text, const std::vector<std::string>& allowed);
// The same of the process that has connected `fd`. False if it is gone.
[[nodiscard]] bool peer_is_in_cgroup(int fd, pid_t peer, const std::vector<std::string>& allowed);

}  // namespace mtcp
