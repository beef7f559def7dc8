// Whom a memif lets in when the programs of one user run as different ones: root's, which have given up their rights.
#include <grp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "stack/port/dpdk/memif/memif_proof.hh"
#include "tests/port/device.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

constexpr uid_t kOther = 65534;
using Key = std::optional<SipKey>;

std::string name() { return "mtcp-user-" + std::to_string(getpid()); }

void become_other() { EXPECT(setgroups(0, nullptr) == 0 && setresuid(kOther, kOther, kOther) == 0); }

DeviceConfig end(const char* role, const std::string& socket, Key key) {
  auto c = config(std::string("net_memif0,role=") + role + ",socket=" + socket);
  c.peer_key = key;
  return c;
}

// An end that runs as another user, and stays until it is told.
void be_other_end(Process& parent, const DeviceConfig& c) {
  become_other();
  const auto device = open_or_die(c);
  const auto port = device->claim(0, 2);
  parent.tell();
  (void)within(seconds(5), [&] { (void)receive(*port, ""); return parent.told(); });
}

// Root's end: whether it has a link, and what it says.
void expect_link(const DeviceConfig& c, bool wanted) {
  const auto device = open_or_die(c);
  const auto port = device->claim(0, 2);
  std::string said;
  (void)within(seconds(3), [&] {
    (void)receive(*port, "");
    said += port->notice().text;
    return port->link_up() || !said.empty();
  });
  EXPECT(port->link_up() == wanted);
  EXPECT(wanted == said.empty());
  EXPECT(wanted || said.find("peer_users = [65534] allows it") != said.npos);
}

// The two ends, with the keys that they have.
void join(Key others, Key own, bool wanted, bool other_is_server) {
  const std::string socket = name();
  Process other([&](Process& parent) { be_other_end(parent, end(other_is_server ? "server" : "client", socket, others)); });
  REQUIRE(other.wait());
  Process root([&](Process&) { expect_link(end(other_is_server ? "client" : "server", socket, own), wanted); });
  CHECK(root.join() == 0);
  other.tell();
  CHECK(other.join() == 0);
}

int connect_to(const std::string& socket) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  memcpy(a.sun_path + 1, socket.data(), socket.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + socket.size());
  // Its backlog is one.
  EXPECT(within(seconds(5), [&] { return connect(fd, reinterpret_cast<sockaddr*>(&a), size) == 0; }));
  return fd;
}

}  // namespace

TEST_CASE("memif: another user is let in, at either end, who has the key of the program's user") {
  if (geteuid() != 0) return;
  const SipKey key{1, 2}, another{1, 3};
  const bool other_is_server = GENERATE(false, true);
  join(key, key, true, other_is_server);
  join(another, key, false, other_is_server);
  join({}, key, false, other_is_server);
  join(key, {}, false, other_is_server);
}

TEST_CASE("memif: a proof is of use to the process that it is about, and to no other") {
  const SipKey key{5, 6};
  std::array<std::byte, 32> name{};
  dpdk::write_proof(key, name);
  const auto* text = reinterpret_cast<const char*>(name.data());
  CHECK(dpdk::proves(key, getpid(), text));
  CHECK(!dpdk::proves({5, 7}, getpid(), text));
  CHECK(!dpdk::proves(key, getppid(), text));
  CHECK(!dpdk::proves(key, 0, ""));
  CHECK(!dpdk::proves(key, 1 << 29, ""));
}

TEST_CASE("memif: those who show nothing keep nobody out") {
  if (geteuid() != 0) return;
  const std::string socket = name();
  Process server([&](Process& parent) {
    const auto device = open_or_die(end("server", socket, SipKey{1, 2}));
    const auto port = device->claim(0, 2);
    parent.tell();
    EXPECT(within(seconds(8), [&] { (void)receive(*port, ""); return port->link_up(); }));
    (void)parent.wait();
  });
  REQUIRE(server.wait());
  Process silent([&](Process& parent) {
    become_other();
    for (int i = 0; i < 12; ++i) EXPECT(connect_to(socket) >= 0);
    parent.tell();
    (void)parent.wait();
  });
  REQUIRE(silent.wait());
  Process client([&](Process&) {
    const auto device = open_or_die(end("client", socket, {}));
    const auto port = device->claim(0, 2);
    EXPECT(within(seconds(5), [&] { (void)receive(*port, ""); return port->link_up(); }));
  });
  CHECK(client.join() == 0);
  silent.tell();
  CHECK(silent.join() == 0);
  server.tell();
  CHECK(server.join() == 0);
}
