// The options that a socket has which another process has made: what it has set there is in the kernel's socket.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#include <array>
#include <cstring>

#include "intercept/call.hh"
#include "intercept/sockopt/sockopt_table.hh"

namespace mtcp::intercept {
namespace {

constexpr int kMaxPacingRate = 47;  // SO_MAX_PACING_RATE
constexpr int kTimes[] = {SO_TIMESTAMP, SO_TIMESTAMPNS};

bool is_doubled(const OptionRow& row) { return row.level == SOL_SOCKET && (row.name == SO_RCVBUF || row.name == SO_SNDBUF); }

// What differs from a socket that nobody has touched (`fresh`).
template <typename T>
void learn(Process& process, Socket& s, int fresh, int level, int name) {
  T value{}, usual{};
  socklen_t size = sizeof value, usual_size = sizeof usual;
  if (process.kernel.getsockopt(s.fd, level, name, &value, &size) != 0 || size != sizeof value) return;
  if (process.kernel.getsockopt(fresh, level, name, &usual, &usual_size) != 0 || std::memcmp(&value, &usual, sizeof value) == 0) return;
  (void)set_option(process, s, level, name, &value, sizeof value);
}

void learn_row(Process& process, Socket& s, int fresh, const OptionRow& row) {
  if (row.get == nullptr || row.set == nullptr) return;
  if (!is_doubled(row)) return learn<int>(process, s, fresh, row.level, row.name);
  int value = 0, usual = 0;
  socklen_t size = sizeof value;
  const bool read = process.kernel.getsockopt(s.fd, row.level, row.name, &value, &size) == 0 &&
                    process.kernel.getsockopt(fresh, row.level, row.name, &usual, &size) == 0;
  if (!read || value == usual) return;
  value /= 2;
  (void)set_option(process, s, row.level, row.name, &value, sizeof value);
}

// One key or two; where it has none of its own, what it says is the host's.
void learn_fast_open_key(Process& process, Socket& s, int fresh) {
  std::array<std::byte, 32> keys{}, usual{};
  socklen_t size = sizeof keys, usual_size = sizeof usual;
  if (process.kernel.getsockopt(s.fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, keys.data(), &size) != 0 || size == 0) return;
  if (process.kernel.getsockopt(fresh, IPPROTO_TCP, TCP_FASTOPEN_KEY, usual.data(), &usual_size) != 0) return;
  if (size != usual_size || keys != usual) (void)set_option(process, s, IPPROTO_TCP, TCP_FASTOPEN_KEY, keys.data(), size);
}

}  // namespace

void learn_options(Process& process, Socket& s) {
  const int fresh = process.kernel.socket(s.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fresh < 0) return;
  for (unsigned i = 0; i < option_rows(); ++i) learn_row(process, s, fresh, option_row(i));
  learn<linger>(process, s, fresh, SOL_SOCKET, SO_LINGER);
  learn<timeval>(process, s, fresh, SOL_SOCKET, SO_RCVTIMEO);
  learn<timeval>(process, s, fresh, SOL_SOCKET, SO_SNDTIMEO);
  learn<std::array<char, 16>>(process, s, fresh, IPPROTO_TCP, TCP_CONGESTION);
  learn<std::uint64_t>(process, s, fresh, SOL_SOCKET, kMaxPacingRate);
  learn_fast_open_key(process, s, fresh);
  for (const int name : kTimes) learn<int>(process, s, fresh, SOL_SOCKET, name);
  learn<std::uint64_t>(process, s, fresh, SOL_SOCKET, SO_TIMESTAMPING);
  (void)process.kernel.close(fresh);
  int only = 0;
  socklen_t size = sizeof only;
  if (s.v6 && process.kernel.getsockopt(s.fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size) == 0) s.v6_only = only != 0;
  s.unreplayed = 0;  // the kernel's socket has them
}

}  // namespace mtcp::intercept
