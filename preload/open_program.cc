// mtcp-open: opens the device of a configuration, gives up what it needed for that, and hands what programs need to share the
// device to those who may have it (intercept/opener.hh). The interface's XDP program stays on it as long as this process lives.
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "intercept/opener.hh"
#include "preload/engine_library.hh"
#include "preload/peer_cgroup.hh"

namespace {

using namespace mtcp;
using namespace mtcp::intercept;

constexpr int kUsage = 2, kFailed = 1;
constexpr int kTidyInterval = 200;  // milliseconds

struct Settings {
  std::string config = "/etc/mtcp/mtcp.toml";
  std::string socket;               // empty: kOpenerDirectory/IFACE.sock
  gid_t group = static_cast<gid_t>(-1);
  mode_t mode = 0660;
  bool anybody = true;              // who may use the socket by its mode
  std::vector<uid_t> users;
  std::vector<std::string> cgroups;
};

int fail(const std::string& what) {
  fprintf(stderr, "mtcp-open: %s\n", what.c_str());
  return kFailed;
}

bool is_number(const std::string& text) { return !text.empty() && text.find_first_not_of("0123456789") == text.npos; }

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    names.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

bool read_users(const std::string& list, Settings& settings) {
  settings.anybody = false;
  for (const std::string& name : split(list)) {
    const passwd* user = getpwnam(name.c_str());
    if (user == nullptr && !is_number(name)) return fail("there is no user " + name), false;
    settings.users.push_back(user != nullptr ? user->pw_uid : static_cast<uid_t>(strtoul(name.c_str(), nullptr, 10)));
  }
  return true;
}

bool read_cgroups(const std::string& list, Settings& settings) {
  settings.anybody = false;
  for (const std::string& name : split(list)) {
    if (!name.starts_with('/')) return fail("-C: expected a control group as in /proc/PID/cgroup, like /system.slice/nginx.service"), false;
    settings.cgroups.push_back(name);
  }
  return true;
}

bool read_arguments(int argc, char** argv, Settings& settings) {
  for (int option = 0; (option = getopt(argc, argv, "c:s:g:m:u:C:")) != -1;) {
    const std::string value = optarg != nullptr ? optarg : "";
    switch (option) {
      case 'c': settings.config = value; break;
      case 's': settings.socket = value; break;
      case 'm': {
        char* end = nullptr;
        const unsigned long mode = strtoul(value.c_str(), &end, 8);
        if (value.empty() || *end != '\0' || mode > 0777) return fail("-m: expected a mode like 0660"), false;
        settings.mode = static_cast<mode_t>(mode);
        break;
      }
      case 'g': {
        const group* found = getgrnam(value.c_str());
        if (found == nullptr && !is_number(value)) return fail("there is no group " + value), false;
        settings.group = found != nullptr ? found->gr_gid : static_cast<gid_t>(strtoul(value.c_str(), nullptr, 10));
        break;
      }
      case 'u':
        if (!read_users(value, settings)) return false;
        break;
      case 'C':
        if (!read_cgroups(value, settings)) return false;
        break;
      default: return false;
    }
  }
  return optind == argc;
}

// A socket at `path`, in place of one that a process before has left there. -1: told.
int listen_at(const std::string& path, const Settings& settings) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(path + " is too long for a socket"), -1;
  path.copy(address.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct stat s{};
  if (lstat(path.c_str(), &s) == 0 && S_ISSOCK(s.st_mode)) unlink(path.c_str());
  const mode_t before = umask(0777);  // nobody's, until it is as it is to be
  const bool bound = fd >= 0 && bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  umask(before);
  if (bound && (settings.group == static_cast<gid_t>(-1) || chown(path.c_str(), static_cast<uid_t>(-1), settings.group) == 0) &&
      chmod(path.c_str(), settings.mode) == 0 && listen(fd, 128) == 0)
    return fd;
  fail(path + ": " + strerror(errno));
  return -1;
}

// What the device is open with needs no privilege any more.
bool drop_privileges() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, 2> none{};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 &&
         syscall(SYS_capset, &header, none.data()) == 0;
}

bool may_have(int fd, const Settings& settings) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return settings.anybody || peer.uid == 0 || std::ranges::find(settings.users, peer.uid) != settings.users.end() ||
         peer_is_in_cgroup(fd, peer.pid, settings.cgroups);
}

void invite(int fd, OpenedDevice& device) {
  std::array<std::byte, kInvitationTerms> terms{};
  std::array<int, kInvitationDescriptors> descriptors{};
  const std::size_t n = device.invite(terms, descriptors);
  if (n == 0) return;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> control{};
  iovec v{terms.data(), terms.size()};
  msghdr m{};
  m.msg_iov = &v;
  m.msg_iovlen = 1;
  m.msg_control = control.data();
  m.msg_controllen = CMSG_SPACE(n * sizeof(int));
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(n * sizeof(int));
  memcpy(CMSG_DATA(c), descriptors.data(), n * sizeof(int));
  (void)sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

volatile sig_atomic_t ended = 0;

int serve(int listener, OpenedDevice& device, const Settings& settings) {
  struct sigaction action{};
  action.sa_handler = [](int) { ended = 1; };
  for (const int signal : {SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
  while (ended == 0) {
    pollfd p{listener, POLLIN, 0};
    if (poll(&p, 1, kTidyInterval) == 1) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0 && may_have(fd, settings)) invite(fd, device);
      if (fd >= 0) close(fd);
    }
    device.tidy();
  }
  return 0;
}

// systemd waits for this (Type=notify).
void say_ready() {
  const char* where = getenv("NOTIFY_SOCKET");
  if (where == nullptr || *where == '\0') return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t n = std::min(strlen(where), sizeof address.sun_path - 1);
  memcpy(address.sun_path, where, n);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  constexpr char kReady[] = "READY=1";
  (void)sendto(fd, kReady, sizeof kReady - 1, MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + n));
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  if (!read_arguments(argc, argv, settings)) {
    fprintf(stderr, "usage: mtcp-open [-c FILE] [-s SOCKET] [-g GROUP] [-m MODE] [-u USER[,USER...]] [-C CGROUP[,CGROUP...]]\n");
    return kUsage;
  }
  void* engine = open_engine("mtcp-open");
  const auto open = engine != nullptr ? reinterpret_cast<EngineOpen>(dlsym(engine, kEngineOpenName)) : nullptr;
  if (open == nullptr) return kNoEngine;
  const CheckListener listener{
      .context = nullptr, .problem = [](void*, const char* text) { fprintf(stderr, "mtcp-open: %s\n", text); }, .fact = [](void*, const char*, const char*) {}};
  OpenedDevice* device = nullptr;
  if (const int status = open(settings.config.c_str(), &listener, &device); status != 0) return status;
  if (settings.socket.empty()) {
    if (mkdir(kOpenerDirectory, 0755) != 0 && errno != EEXIST) return fail(std::string(kOpenerDirectory) + ": " + strerror(errno));
    settings.socket = std::string(kOpenerDirectory) + "/" + device->interface() + ".sock";
  }
  const int fd = listen_at(settings.socket, settings);
  if (fd < 0) return kFailed;
  if (!drop_privileges()) return fail(std::string("privileges can't be given up: ") + strerror(errno));
  fprintf(stderr, "mtcp-open: %s is open for programs, at %s\n", device->interface().c_str(), settings.socket.c_str());
  say_ready();
  const int status = serve(fd, *device, settings);
  unlink(settings.socket.c_str());
  (void)rmdir(kOpenerDirectory);  // unless there are others
  return status;
}
