// Puts sockmap.bpf.c on a cgroup for as long as this runs, having seen that it works there; at SIGTERM it prints how many messages went
// which way. For mtcp-ab's side "sockmap".
//   sockmap_loader OBJECT CGROUP
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace mtcp::perf {
namespace {

enum Way : std::uint32_t { kRedirected = 1, kByTcp = 2 };  // as in sockmap.bpf.c

bool complain(const char* what) {
  std::fprintf(stderr, "sockmap_loader: %s: %s\n", what, std::strerror(errno));
  return false;
}

class Sockmap {
 public:
  bool load(const char* object);
  bool attach(const char* cgroup);
  [[nodiscard]] std::uint64_t messages(Way way) const;

 private:
  int counts_ = -1;
  bpf_object* object_ = nullptr;
};

bool Sockmap::load(const char* object) {
  object_ = bpf_object__open_file(object, nullptr);
  if (object_ == nullptr) return complain(object);
  if (bpf_object__load(object_) != 0) return complain("this kernel refuses the programs");
  counts_ = bpf_object__find_map_fd_by_name(object_, "counts");
  return counts_ >= 0 || complain("counts");
}

bool Sockmap::attach(const char* cgroup) {
  const int group = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (group < 0) return complain(cgroup);
  bpf_program* const enter = bpf_object__find_program_by_name(object_, "mtcp_enter");
  bpf_program* const redirect = bpf_object__find_program_by_name(object_, "mtcp_redirect");
  if (enter == nullptr || redirect == nullptr) return complain("the object lacks a program");
  if (bpf_prog_attach(bpf_program__fd(redirect), bpf_object__find_map_fd_by_name(object_, "sockets"), BPF_SK_MSG_VERDICT, 0) != 0)
    return complain("redirection");
  return bpf_program__attach_cgroup(enter, group) != nullptr || complain("the cgroup");  // gone when this process is
}

std::uint64_t Sockmap::messages(Way way) const {
  std::vector<std::uint64_t> of_processors(static_cast<std::size_t>(libbpf_num_possible_cpus()));
  const std::uint32_t key = way;
  if (bpf_map_lookup_elem(counts_, &key, of_processors.data()) != 0) return 0;
  std::uint64_t sum = 0;
  for (const std::uint64_t n : of_processors) sum += n;
  return sum;
}

bool join(const std::string& cgroup) {
  const int fd = open((cgroup + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
  const bool joined = fd >= 0 && write(fd, "0", 1) == 1;
  if (fd >= 0) close(fd);
  return joined || complain(cgroup.c_str());
}

// One message each way over loopback.
bool talk() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, name, length) != 0 || listen(listener, 1) != 0 || getsockname(listener, name, &length) != 0 ||
      connect(one, name, length) != 0)
    return complain("loopback");
  const int other = accept(listener, nullptr, nullptr);
  std::array<char, 4> got{};
  const bool right = send(one, "ping", 4, 0) == 4 && recv(other, got.data(), 4, MSG_WAITALL) == 4 && std::memcmp(got.data(), "ping", 4) == 0 &&
                     send(other, "pong", 4, 0) == 4 && recv(one, got.data(), 4, MSG_WAITALL) == 4 && std::memcmp(got.data(), "pong", 4) == 0;
  for (const int fd : {one, other, listener}) close(fd);
  if (!right) std::fputs("sockmap_loader: what was sent did not arrive\n", stderr);
  return right;
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  using namespace mtcp::perf;
  if (argc != 3) {
    std::fputs("usage: sockmap_loader OBJECT CGROUP\n", stderr);
    return 2;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  alarm(10);  // for the trial
  Sockmap sockmap;
  if (!sockmap.load(argv[1]) || !sockmap.attach(argv[2]) || !join(argv[2]) || !talk()) return 1;
  if (sockmap.messages(kRedirected) != 2) {
    std::fprintf(stderr, "sockmap_loader: of two messages %llu were redirected\n", static_cast<unsigned long long>(sockmap.messages(kRedirected)));
    return 1;
  }
  alarm(0);
  std::puts("ready");
  std::fflush(stdout);
  int number = 0;
  sigwait(&ends, &number);
  std::printf("{\"redirected\": %llu, \"by_tcp\": %llu}\n", static_cast<unsigned long long>(sockmap.messages(kRedirected) - 2),
              static_cast<unsigned long long>(sockmap.messages(kByTcp)));
  return 0;
}
