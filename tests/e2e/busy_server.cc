// A server that computes for seconds without a socket call: what the peer sees meanwhile is what the service thread does.
// Serves one connection: reads a command, answers "computing", and computes for 4 s.
//   "receive"  then reads to the end and checks that it got 20,000 bytes
//   "send"     reads "go", which its peer sends when it has gone deaf, sends 5,000 bytes, then computes
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

void compute(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  volatile unsigned long x = 1;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 100000; ++i) x = x * 6364136223846793005UL + 1442695040888963407UL;
  }
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

int open_listener(const char* host, const char* port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  if (::inet_pton(AF_INET, host, &a.sin_addr) != 1) fail("address");
  if (::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) fail("bind");
  if (::listen(fd, 16) != 0) fail("listen");
  return fd;
}

void answer(int fd, const std::string& text) {
  if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) fail("send");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: busy_server ADDRESS PORT\n");
    return 2;
  }
  const int listener = open_listener(argv[1], argv[2]);
  std::printf("ready\n");
  std::fflush(stdout);
  const int fd = ::accept(listener, nullptr, nullptr);
  if (fd < 0) fail("accept");
  char buffer[65536];
  const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
  if (n <= 0) fail("recv");
  const std::string command(buffer, static_cast<std::size_t>(n));
  answer(fd, "computing");
  if (command == "send") {
    if (::recv(fd, buffer, sizeof buffer, 0) <= 0) fail("recv");
    answer(fd, std::string(5000, 's'));
  }
  compute(std::chrono::milliseconds(4000));
  std::size_t total = 0;
  for (ssize_t r = 0; (r = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) total += static_cast<std::size_t>(r);
  if (command == "receive" && total != 20000) {
    std::fprintf(stderr, "got %zu bytes\n", total);
    return 1;
  }
  ::close(fd);
  ::close(listener);
  return 0;
}
