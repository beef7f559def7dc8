#include "intercept/worker_number.hh"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>

namespace mtcp::intercept {
namespace {

// "\0mtcp/NUMBER/HASH/PORT": the hash is the identity, as much of the port string as fits is for who reads
// /proc/net/unix.
socklen_t name_of(const std::string& port, std::uint32_t number, sockaddr_un& address) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a: the same in every process and version
  for (const char c : port) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char* const name = address.sun_path + 1;
  const std::size_t room = sizeof address.sun_path - 1;
  const int length =
      snprintf(name, room, "mtcp/%u/%016llx/%s", number, static_cast<unsigned long long>(hash), port.c_str());
  const std::size_t used = std::min(static_cast<std::size_t>(std::max(length, 0)), room - 1);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + used);
}

}  // namespace

std::string with_worker_number(std::string port, std::uint32_t number) {
  const std::string text = std::to_string(number);
  for (std::size_t at = 0; (at = port.find(kWorkerPlaceholder, at)) != std::string::npos; at += text.size())
    port.replace(at, kWorkerPlaceholder.size(), text);
  return port;
}

int WorkerNumber::claim(Kernel& kernel, const std::string& port, std::uint32_t count) {
  // Bound, never listening: nobody can connect to it.
  const int socket = kernel.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return socket;
  int error = -EBUSY;
  for (std::uint32_t n = 0; n < count; ++n) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const socklen_t length = name_of(port, n, address);
    error = kernel.bind(socket, reinterpret_cast<const sockaddr*>(&address), length);
    if (error == -EADDRINUSE) {
      error = -EBUSY;
      continue;
    }
    if (error == 0) {
      fd = socket;
      number = n;
      return 0;
    }
    break;
  }
  kernel.close(socket);
  return error;
}

}  // namespace mtcp::intercept
