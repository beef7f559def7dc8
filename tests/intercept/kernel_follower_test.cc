// The real kernel, in a network namespace of its own.
#include "intercept/device/kernel_follower.hh"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdlib.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/intercept/fake_kernel.hh"
#include "tests/limit.hh"
#include "tests/need_root.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using stack::IpAddress;
using stack::KernelNeighbour;

namespace {

void run(const std::string& command) {
  INFO(command);
  REQUIRE(system(command.c_str()) == 0);
}

const IpAddress kUs = IpAddress::v4(10, 77, 0, 2), kPeer = IpAddress::v4(10, 77, 0, 1);

// ours <-> peer, the latter in a namespace that only its interface keeps.
struct World {
  World() {
    REQUIRE(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0);
    run("mount --make-rprivate / && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip netns add other && "
        "ip link add ours type veth peer name peer netns other && ip addr add 10.77.0.2/24 dev ours && "
        "ip link set ours up && ip -n other addr add 10.77.0.1/24 dev peer && ip -n other link set peer up && "
        "ip -n other link set lo up && ip route add default via 10.77.0.1");
    fd = kernel.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    REQUIRE(fd >= 0);
    std::string message;
    follower = KernelFollower::open(kernel, fd, "ours", message);
    INFO(message);
    REQUIRE(follower != nullptr);
  }
  ~World() {
    follower.reset();
    close(fd);
  }
  // Looks at once, as one that is woken by the descriptor does.
  void look() {
    now += stack::milliseconds(20);
    follower->update(now);
  }
  KernelNeighbour::State wait_for(const IpAddress& a) {
    for (int i = 0; i < 400; ++i) {
      look();
      const auto state = follower->neighbour(a).state;
      if (state != KernelNeighbour::State::unknown) return state;
      usleep(10'000);
    }
    return KernelNeighbour::State::unknown;
  }
  mtcp::intercept::testing::FakeKernel kernel;
  int fd = -1;
  std::unique_ptr<KernelFollower> follower;
  stack::Time now{stack::seconds(100)};
};

void drop_capabilities() {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  REQUIRE(syscall(SYS_capset, &head, none) == 0);
}

}  // namespace

TEST_CASE("Addresses, routes, MTU and link are as the kernel has them, and stay so") {
  World w;
  const stack::KernelView& view = w.follower->view();
  CHECK(view.link.exists);
  CHECK(view.link.up);
  CHECK(view.link.mtu == 1500);
  REQUIRE(view.own.size() == 1);
  CHECK(view.own[0].address == kUs);
  CHECK(view.route_to(IpAddress::v4(8, 8, 8, 8))->gateway == kPeer);
  CHECK(view.reaches(kPeer));

  const std::uint32_t before = view.generation;
  w.look();
  CHECK(view.generation == before);
  run("ip addr change 10.77.0.2/24 dev ours valid_lft 1000 preferred_lft 1000");
  w.look();
  CHECK(view.generation == before);  // nothing that matters here
  run("ip addr add 10.77.0.9/24 dev ours && ip route replace default via 10.77.0.5 mtu lock 1300 && ip link set ours mtu 1400 && "
      "ip -6 addr add 2001:db8::2/64 dev ours nodad");
  w.look();
  CHECK(view.generation != before);
  CHECK(view.own.size() == 3);
  CHECK(view.route_to(IpAddress::v4(8, 8, 8, 8))->gateway == IpAddress::v4(10, 77, 0, 5));
  CHECK(view.route_to(IpAddress::v4(8, 8, 8, 8))->mtu == 1300);
  CHECK(view.link.mtu == 1400);
  run("ip addr del 10.77.0.9/24 dev ours && ip link set ours down");
  w.look();
  CHECK_FALSE(view.link.up);
  CHECK_FALSE(view.reaches(kPeer));  // the kernel has taken the routes away without a word about them
  run("ip link set ours up && ip -n other link set peer down");
  w.look();
  CHECK_FALSE(view.link.up);
  run("ip link del ours");
  w.look();
  CHECK_FALSE(view.link.exists);
  CHECK(view.own.empty());
}

TEST_CASE("A neighbour in use is resolved by the kernel, and its new MAC address is heard of") {
  World w;
  KernelNeighbour n;
  while (w.follower->next_change(n)) {
  }
  w.follower->use(kPeer, w.now);
  REQUIRE(w.wait_for(kPeer) == KernelNeighbour::State::known);
  bool told = false;
  while (w.follower->next_change(n)) told = told || (n.address == kPeer && n.state == KernelNeighbour::State::known);
  CHECK(told);
  run("ip neigh replace 10.77.0.1 lladdr 02:00:00:00:00:99 dev ours");
  w.look();
  REQUIRE(w.follower->next_change(n));
  CHECK(n.mac.bytes[5] == 0x99);
  run("ip neigh del 10.77.0.1 dev ours");
  w.look();
  REQUIRE(w.follower->next_change(n));
  CHECK(n.state != KernelNeighbour::State::known);
}

TEST_CASE("What comes of the first question of all is a change, however soon it comes") {
  World w;
  w.follower->use(kPeer, w.now);
  REQUIRE(w.wait_for(kPeer) == KernelNeighbour::State::known);
  KernelNeighbour n;
  REQUIRE(w.follower->next_change(n));
  CHECK(n.address == kPeer);
}

TEST_CASE("A neighbour that is not there fails") {
  World w;
  w.follower->use(IpAddress::v4(10, 77, 0, 66), w.now);
  CHECK(w.wait_for(IpAddress::v4(10, 77, 0, 66)) == KernelNeighbour::State::failed);
}

TEST_CASE("What the kernel had to drop is read anew") {
  World w;
  const int small = 2304;
  setsockopt(w.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  run("for i in $(seq 100); do ip addr add 10.78.0.$i/32 dev ours; ip neigh add 10.77.0.$((i + 100)) lladdr 02:00:00:00:01:01 dev ours; done");
  w.look();
  CHECK(w.follower->view().own.size() == 101);
  CHECK(w.follower->neighbour(IpAddress::v4(10, 77, 0, 150)).state == KernelNeighbour::State::known);
  run("ip neigh del 10.77.0.150 dev ours; for i in $(seq 100); do ip addr del 10.78.0.$i/32 dev ours; done");
  w.look();
  CHECK(w.follower->view().own.size() == 1);
  CHECK(w.follower->neighbour(IpAddress::v4(10, 77, 0, 150)).state != KernelNeighbour::State::known);
}

TEST_CASE("What cannot be read just now is read later, and until then it is as it was") {
  World w;
  run("ip addr add 10.77.0.9/24 dev ours");
  const std::size_t meanwhile = mtcp::test::with_limit(RLIMIT_NOFILE, 0, [&] {  // no descriptor is to be had
    w.look();
    return w.follower->view().own.size();
  });
  CHECK(meanwhile == 1);
  w.look();
  CHECK(w.follower->view().own.size() == 2);
}

TEST_CASE("Policy routing is followed as it changes") {
  World w;
  const stack::KernelView& view = w.follower->view();
  const IpAddress far = IpAddress::v4(198, 51, 100, 1);
  CHECK(view.rules().empty());
  CHECK(view.reaches(far));
  run("ip link add tunnel type veth peer name tunnel-end && ip link set tunnel-end up && ip link set tunnel up && ip route add default dev tunnel table 1000");
  w.look();
  CHECK(view.reaches(far));
  run("ip rule add not fwmark 0xca6c lookup 1000 && ip rule add lookup main suppress_prefixlength 0");
  w.look();
  CHECK_FALSE(view.reaches(far));
  CHECK(view.reaches(kPeer));
  run("ip rule del lookup main suppress_prefixlength 0 && ip rule del not fwmark 0xca6c && ip rule add to 198.51.100.0/24 lookup 1000");
  w.look();
  CHECK_FALSE(view.reaches(far));
  CHECK(view.reaches(IpAddress::v4(203, 0, 113, 1)));
  run("ip route replace default via 10.77.0.1 dev ours table 1000");
  w.look();
  CHECK(view.reaches(far));
  run("ip rule del to 198.51.100.0/24");
  w.look();
  CHECK(view.rules().empty());
  // Of one family nothing is said about the other.
  run("ip -6 addr add 2001:db8::2/64 dev ours nodad && ip -6 rule add to 2001:db8::/32 unreachable");
  w.look();
  CHECK_FALSE(view.reaches(IpAddress{{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}));
  CHECK(view.reaches(far));
}

// In the last place: the capabilities are gone then.
TEST_CASE("Without a privilege a datagram to the neighbour has the kernel resolve it") {
  World w;
  drop_capabilities();
  w.follower->use(kPeer, w.now);
  CHECK(w.wait_for(kPeer) == KernelNeighbour::State::known);
}
