#include "intercept/device/worker_number.hh"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "intercept/device/own_directory.hh"

namespace mtcp::intercept {
namespace {

// "NAMESPACE-HASH-NUMBER.lock": of the network namespace, and of the port string.
using LockName = std::array<char, 80>;
LockName name_of(const std::string& port, std::uint32_t number) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a: the same in every process and version
  for (const char c : port) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  struct stat network {};
  (void)::stat("/proc/self/ns/net", &network);  // without /proc all namespaces are one
  LockName name{};
  snprintf(name.data(), name.size(), "%llu-%016llx-%u.lock", static_cast<unsigned long long>(network.st_ino),
           static_cast<unsigned long long>(hash), number);
  return name;
}

}  // namespace

std::string with_worker_number(std::string port, std::uint32_t number) {
  const std::string text = std::to_string(number);
  for (std::size_t at = 0; (at = port.find(kWorkerPlaceholder, at)) != std::string::npos; at += text.size())
    port.replace(at, kWorkerPlaceholder.size(), text);
  return port;
}

int WorkerNumber::claim(Kernel& kernel, const std::string& port, std::uint32_t count) {
  const int directory = open_own_directory();
  if (directory < 0) return directory;
  int error = -EBUSY;
  for (std::uint32_t n = 0; n < count && error == -EBUSY; ++n) {
    const int file =
        ::openat(directory, name_of(port, n).data(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    error = file < 0 ? -errno : ::flock(file, LOCK_EX | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (error == 0) {
      fd = file;
      number = n;
    } else if (file >= 0) {
      kernel.close(file);
    }
  }
  kernel.close(directory);
  return error;
}

}  // namespace mtcp::intercept
