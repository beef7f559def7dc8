// A connection that is handed to another program or process: exec, SCM_RIGHTS, sendfile from a child.
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>

#include <cstring>

#include "tests/parity/child.hh"
#include "tests/parity/control_message.hh"

using namespace parity;

TEST_CASE("shared: a child sends a file", "[shared]") {
  Pair pair = connected_pair();
  const std::string content = pattern(300'000, 4);
  FILE* file = ::tmpfile();
  REQUIRE(file != nullptr);
  REQUIRE(::fwrite(content.data(), 1, content.size(), file) == content.size());
  REQUIRE(::fflush(file) == 0);
  Child child([&] {
    pair.client.reset();
    off_t offset = 0;
    while (offset < static_cast<off_t>(content.size())) {
      if (::sendfile(pair.server, ::fileno(file), &offset, content.size()) <= 0) return 1;
    }
    return 0;
  });
  pair.server.reset();
  REQUIRE((receive_until_end(pair.client) == content));
  REQUIRE(child.wait() == 0);
  ::fclose(file);
}

TEST_CASE("shared: exec gives a program the connection as its standard streams", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    ::dup2(pair.server, 0);
    ::dup2(pair.server, 1);
    ::execl("/bin/cat", "cat", nullptr);
    return 98;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "meow"));
  REQUIRE(receive_exactly(pair.client, 4) == "meow");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: a program started by exec learns both addresses of the connection it was given", "[shared]") {
  Pair pair = connected_pair();
  const auto text = [](const Address& a) { return a.host() + " " + std::to_string(a.port()); };
  const std::string expected = text(local_of(pair.client)) + " " + text(peer_of(pair.client));
  Child child([&] {
    ::dup2(pair.server, 0);
    ::execl("/usr/bin/python3", "python3", "-c",
            "import socket\ns = socket.socket(fileno=0)\n"
            "s.sendall(('%s %d %s %d' % (s.getpeername()[:2] + s.getsockname()[:2])).encode())", nullptr);
    return 98;
  });
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == expected);
  REQUIRE(child.wait() == 0);
}

TEST_CASE("shared: exec gives a program the connection under another number", "[shared]") {
  Pair pair = connected_pair();
  Child child([&] {
    // It may have this number already: then dup2 changes nothing.
    const bool there = pair.server == 9 ? ::fcntl(9, F_SETFD, 0) == 0 : ::dup2(pair.server, 9) == 9;
    if (!there) return 97;
    ::execl("/bin/sh", "sh", "-c", "read line <&9; echo \"got $line\" >&9", nullptr);
    return 98;
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "this\n"));
  const std::string got = receive_until_end(pair.client);
  REQUIRE(child.wait() == 0);
  REQUIRE(got == "got this\n");
}

TEST_CASE("shared: popen and system leave connections alone", "[shared]") {
  Pair pair = connected_pair();
  FILE* out = ::popen("echo hello", "re");
  REQUIRE(out != nullptr);
  char line[32] = {};
  REQUIRE(::fgets(line, sizeof line, out) != nullptr);
  REQUIRE(std::string(line) == "hello\n");
  REQUIRE(::pclose(out) == 0);
  REQUIRE(::system("true") == 0);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
  pair.server.reset();
  REQUIRE(ends(pair.client));
}

TEST_CASE("shared: a connection passed by SCM_RIGHTS works at the receiver", "[shared]") {
  const bool many = GENERATE(false, true);  // by sendmmsg
  Pair pair = connected_pair();
  int way[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, way) == 0);
  Child child([&] {
    pair.client.reset();
    pair.server.reset();
    DescriptorMessage in;
    if (::recvmsg(way[1], &in.m, 0) != 1) return 1;
    const int fd = in.descriptor();
    if (fd < 0) return 2;
    return echo_until_end(fd);
  });
  DescriptorMessage out(pair.server);
  if (many) {
    mmsghdr list{out.m, 0};
    REQUIRE(::sendmmsg(way[0], &list, 1, 0) == 1);
  } else {
    REQUIRE(::sendmsg(way[0], &out.m, 0) == 1);
  }
  pair.server.reset();
  REQUIRE(send_all(pair.client, "passed on"));
  REQUIRE(receive_exactly(pair.client, 9) == "passed on");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(child.wait() == 0);
  ::close(way[0]);
  ::close(way[1]);
}
