#include "tests/preload/under_shim.hh"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <link.h>
#include <sys/wait.h>

#include <cstring>

namespace mtcp::preload {

namespace {

FakeControl* find_control() {
  Fd(::socket(AF_INET, SOCK_STREAM, 0)).reset();
  FakeControl* found = nullptr;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        if (strstr(info->dlpi_name, "libmtcp_engine.so") == nullptr) return 0;
        void* library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
        const auto entry = reinterpret_cast<FakeControlEntry>(dlsym(library, kFakeControlName));
        *static_cast<FakeControl**>(result) = entry != nullptr ? entry() : nullptr;
        return 1;
      },
      &found);
  if (found == nullptr)
    FAIL("the fake engine is not loaded: run by meson test, or with LD_PRELOAD and MTCP_CONF");
  return found;
}

}  // namespace

static FakeControl* found_control() {
  static FakeControl* found = find_control();
  return found;
}

FakeControl& control() {
  FakeControl* found = found_control();
  found->recording = true;
  found->calls.clear();
  found->results.clear();
  found->during = nullptr;
  return *found;
}

std::vector<std::string> recorded() { return std::exchange(found_control()->calls, {}); }

std::string only_call(int fd) {
  const std::vector<std::string> calls = recorded();
  REQUIRE(calls.size() == 1);
  std::string text = calls[0];
  const std::string number = "=" + std::to_string(fd);
  const std::size_t first = text.find('=');
  if (first != std::string::npos && text.compare(first, number.size(), number) == 0)
    text.replace(first, number.size(), "=@");
  return text;
}

Connected::Connected() : a(::socket(AF_INET, SOCK_STREAM, 0)), b(-1) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::bind(listener, generic, n) == 0);
  REQUIRE(::listen(listener, 1) == 0);
  REQUIRE(::getsockname(listener, generic, &n) == 0);
  REQUIRE(::connect(a, generic, n) == 0);
  const int accepted = ::accept(listener, nullptr, nullptr);
  REQUIRE(accepted >= 0);
  new (&b) Fd(accepted);
  control();
}

std::string with_fd(std::string text, int fd) {
  for (std::size_t at = 0; (at = text.find('@', at)) != std::string::npos;)
    text.replace(at, 1, std::to_string(fd));
  return text;
}

int in_child(const std::function<int()>& f) {
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) _exit(f());
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace mtcp::preload
