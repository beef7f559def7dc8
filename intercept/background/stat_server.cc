#include "intercept/background/stat_server.hh"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "intercept/background/dump_server.hh"
#include "intercept/process.hh"
#include "intercept/support/peer_user.hh"

namespace mtcp::intercept {
namespace {

__attribute__((format(printf, 2, 3))) void append(std::string& out, const char* format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  const int n = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (n > 0) out.append(line, std::min(static_cast<std::size_t>(n), sizeof line - 1));
}

void append_endpoint(std::string& out, const stack::IpAddress& a, std::uint16_t port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (a.is_v4()) {
    inet_ntop(AF_INET, a.bytes.data() + 12, text, sizeof text);
    append(out, " %s:%u", text, port);
  } else {
    inet_ntop(AF_INET6, a.bytes.data(), text, sizeof text);
    append(out, " [%s]:%u", text, port);
  }
}

long long micros(stack::Duration d) { return d.count() / 1000; }

void append_connection(std::string& out, const stack::ConnectionInfo& i) {
  append(out, "connection %s", name(i.state));
  append_endpoint(out, i.key.local, i.key.local_port);
  append_endpoint(out, i.key.remote, i.key.remote_port);
  append(out, " rx_queued=%u tx_queued=%u unsent=%u flight=%u cwnd=%u ssthresh=%u", i.rx_queued, i.tx_queued,
         i.tx_unsent, i.flight, i.cwnd, i.ssthresh);
  append(out, " snd_wnd=%u rcv_wnd=%u mss=%u srtt_us=%lld rttvar_us=%lld rto_us=%lld", i.snd_wnd, i.rcv_wnd,
         i.mss, micros(i.srtt), micros(i.rttvar), micros(i.rto));
  append(out, " retransmits=%u backoff=%u received=%llu acked=%llu\n", i.retransmits, i.backoff,
         static_cast<unsigned long long>(i.bytes_received), static_cast<unsigned long long>(i.bytes_acked));
}

void append_memory(std::string& out, const stack::MemoryInfo& m) {
  append(out, "memory used=%llu level=%s low=%llu pressure=%llu high=%llu out_of_order=%llu pressed=%llu orphans=%u",
         static_cast<unsigned long long>(m.used), m.level, static_cast<unsigned long long>(m.low),
         static_cast<unsigned long long>(m.pressure), static_cast<unsigned long long>(m.high),
         static_cast<unsigned long long>(m.out_of_order), static_cast<unsigned long long>(m.times_pressed), m.orphans);
  if (m.share != UINT32_MAX) append(out, " share=%u", m.share);
  out += "\n";
}

// `kernel`: the kernel serves it, too, on its own addresses.
void append_listeners(std::string& out, const Process& process) {
  for (int fd = 0; fd < process.files.end(); ++fd) {
    const Socket* s = process.files.socket(fd);
    if (s == nullptr || s->fd != fd || s->listener == nullptr) continue;
    append(out, "listener");
    append_endpoint(out, s->listener->local.address, s->listener->local.port);
    append(out, " fd=%d queued=%u backlog=%u half_open=%u kernel=%d\n", fd, s->listener->accept_count, s->listener->backlog,
           s->listener->syn_count, s->kernel_listens ? 1 : 0);
  }
}

// One stack of the process.
void append_stack(std::string& out, const Shard& shard, std::vector<stack::ConnectionInfo>& connections) {
  Instance& instance = *shard.instance;
  const stack::PacketPool& pool = instance.pool();
  append(out, "stack connections=%zu time_waits=%zu packets_free=%zu packets=%zu sleeping=%u turns=%llu useful=%llu contended=%llu\n",
         instance.worker().connections(), instance.worker().time_waits(), pool.available(), pool.capacity(),
         instance.sleeping.load(), static_cast<unsigned long long>(instance.turns.load()), static_cast<unsigned long long>(instance.useful_turns),
         static_cast<unsigned long long>(shard.lock.contended()));
  append_memory(out, instance.worker().memory());
  if (const stack::Steering* steering = instance.device().steering; steering != nullptr) {
    const stack::Steering::Share share = steering->share();
    append(out,
           "share stack=%u queues=%u packets_free=%zu forwarded=%llu received=%llu lost=%llu hash_agrees=%u "
           "hash_differs=%u\n",
           share.stack, share.queues, share.packets_free, static_cast<unsigned long long>(share.sent),
           static_cast<unsigned long long>(share.received), static_cast<unsigned long long>(share.lost),
           share.hash_agrees, share.hash_differs);
  }
  if (const stack::Port* port = instance.port(); port != nullptr) {
    const stack::Port::Status status = port->status();
    append(out, "wire link=%s by=%s checksums=%s merged=%llu tx_dropped=%llu rx_dropped=%llu\n", port->link_up() ? "up" : "down", status.by != nullptr ? status.by : "driver",
           port->tx_checksum_offload() ? "device" : "stack", static_cast<unsigned long long>(status.tx_merged),
           static_cast<unsigned long long>(status.tx_dropped), static_cast<unsigned long long>(status.rx_dropped));
  }
  instance.worker().for_each(
      [](void* context, const stack::ConnectionInfo& info) {
        static_cast<std::vector<stack::ConnectionInfo>*>(context)->push_back(info);
      },
      &connections);
}

std::string report(Process& process) {
  std::string out = "mtcp-stat 1\n";
  const Program& program = process.router.program();
  append(out, "process pid=%d program=%s device=%s\n", static_cast<int>(getpid()),
         program.names.empty() ? "?" : program.names.front().c_str(),
         process.options.device.port.empty() ? "loopback" : process.options.device.port.c_str());
  std::vector<stack::ConnectionInfo> connections;
  {
    const Guard guard(process, Guard::Everything{});
    const Decisions& d = process.decisions;
    Connects connects;
    process.shards.for_each([&connects](const Shard& s) {
      connects.on_stack += s.connects.on_stack;
      connects.in_kernel += s.connects.in_kernel;
    });
    append(out, "decisions listens_on_stack=%llu listens_in_kernel=%llu connects_on_stack=%llu connects_in_kernel=%llu\n",
           static_cast<unsigned long long>(d.listens_on_stack), static_cast<unsigned long long>(d.listens_in_kernel),
           static_cast<unsigned long long>(connects.on_stack), static_cast<unsigned long long>(connects.in_kernel));
    if (!process.started()) return out + "end\n";
    process.shards.for_each([&](const Shard& s) {
      if (s.instance != nullptr) append_stack(out, s, connections);
    });
    append_listeners(out, process);
    for (std::size_t i = 0; i < static_cast<std::size_t>(stack::Counter::count_); ++i) {
      const auto c = static_cast<stack::Counter>(i);
      const auto& info = stack::Stats::info(c);
      static constexpr const char* kSeverity[] = {"info", "drop", "error"};
      std::uint64_t sum = 0;
      process.for_each_stack([&](Instance& s) { sum += s.stats().get(c); });
      append(out, "counter %s %llu %s %s\n", info.name, static_cast<unsigned long long>(sum),
             kSeverity[static_cast<std::size_t>(info.severity)], info.text);
    }
  }
  for (const auto& c : connections) append_connection(out, c);
  return out + "end\n";
}

}  // namespace

// The name can't be known before, so nobody can have taken it; who connects learns from the kernel whose it is.
int open_stat_socket(Process& process) {
  std::uint64_t unique = 0;
  if (getrandom(&unique, sizeof unique, 0) != ssize_t{sizeof unique}) return -EAGAIN;
  const int fd = process.kernel.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  const int high = process.keep_high(fd);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "mtcp-stat-%d-%016llx",
                         static_cast<int>(getpid()), static_cast<unsigned long long>(unique));
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<std::size_t>(n));
  int error = process.kernel.bind(high, reinterpret_cast<sockaddr*>(&address), length);
  if (error == 0) error = process.kernel.listen(high, 4);
  if (error == 0) return high;
  process.files.clear(high);
  process.kernel.close(high);
  return error;
}

void serve_stat(Process& process, int listener, DumpServer& dump) {
  sockaddr_storage client{};
  socklen_t length = sizeof client;
  const int fd = process.kernel.accept4(listener, reinterpret_cast<sockaddr*>(&client), &length, SOCK_CLOEXEC);
  if (fd < 0) return;
  if (DumpServer::is_client(client, length)) return dump.admit(fd);
  const std::optional<uid_t> user = user_of_peer(process.kernel, fd);
  if (user.has_value() && (*user == 0 || *user == geteuid())) {
    // A reader that does not read must not hold the service thread for long.
    const timeval limit{.tv_sec = 0, .tv_usec = 100'000};
    process.kernel.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const std::string text = report(process);
    for (std::size_t sent = 0; sent < text.size();) {
      const ssize_t n = process.kernel.write(fd, text.data() + sent, text.size() - sent);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
  }
  process.kernel.close(fd);
}

}  // namespace mtcp::intercept
