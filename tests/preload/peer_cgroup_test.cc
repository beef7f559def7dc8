#include "preload/peer_cgroup.hh"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>

using namespace mtcp;

TEST_CASE("a process is in a control group that it is named for, or in one below that") {
  const std::vector<std::string> nginx{"/system.slice/nginx.service"};
  CHECK(is_in_cgroup("0::/system.slice/nginx.service\n", nginx));
  CHECK(is_in_cgroup("0::/system.slice/nginx.service/worker\n", nginx));
  CHECK_FALSE(is_in_cgroup("0::/system.slice/nginx.service2\n", nginx));
  CHECK_FALSE(is_in_cgroup("0::/system.slice\n", nginx));
  CHECK_FALSE(is_in_cgroup("0::/\n", nginx));
  CHECK(is_in_cgroup("0::/a/b\n", {"/x", "/a/"}));
  CHECK(is_in_cgroup("0::/\n", {"/"}));
}

TEST_CASE("of several hierarchies the unified one counts, and systemd's") {
  const char* text = "9:name=systemd:/system.slice/redis.service\n4:memory:/system.slice/nginx.service\n0::/\n";
  CHECK(is_in_cgroup(text, {"/system.slice/redis.service"}));
  CHECK_FALSE(is_in_cgroup(text, {"/system.slice/nginx.service"}));
  for (const char* odd : {"", "\n", "0", "0:", "0:/x", "::", "0::", "0::x"}) CHECK_FALSE(is_in_cgroup(odd, {"/x"}));
}

TEST_CASE("the peer of a socket is looked at, and one that is gone has no group") {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
  CHECK(peer_is_in_cgroup(ends[0], getpid(), {"/"}));
  CHECK_FALSE(peer_is_in_cgroup(ends[0], getpid(), {"/there/is/no/such/group"}));
  CHECK_FALSE(peer_is_in_cgroup(ends[0], getpid(), {}));
  CHECK_FALSE(peer_is_in_cgroup(ends[0], 0, {"/"}));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  CHECK_FALSE(peer_is_in_cgroup(ends[0], child, {"/"}));
  for (const int fd : ends) close(fd);
}
