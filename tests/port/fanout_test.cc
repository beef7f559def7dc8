// Packet sockets that know the steering table.
#include <linux/capability.h>
#include <sys/syscall.h>

#include <catch2/catch.hpp>

#include "tests/port/device.hh"
#include "tests/port/wire.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

// A segment to 10.77.0.2:80.
std::string segment(std::uint16_t port, bool v6 = false) {
  std::string f("\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12);
  if (v6) {
    f += std::string("\x86\xdd\x60\0\0\0\0\x14\x06\x40", 10);
    f += std::string("\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16) + std::string("\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02", 16);
  } else {
    f += std::string("\x08\0\x45\0\0\x28\0\0\0\0\x40\x06\0\0\x0a\x4d\0\x01\x0a\x4d\0\x02", 22);
  }
  f += {static_cast<char>(port >> 8), static_cast<char>(port), 0, 80};
  f.resize(f.size() + 16);
  return f;
}

using Stacks = std::vector<OwnedAttachment>;

void have_turns(Stacks& stacks) {
  for (int i = 0; i < 5; ++i) {
    usleep(25'000);
    for (auto& s : stacks) s.port->service(now());
  }
}

// Sends `n` segments of as many flows; how many each of the ports got as its own.
std::vector<std::size_t> spread(Stacks& stacks, int n, bool v6) {
  const int out = packet_socket("peer");
  for (int i = 0; i < n; ++i) {
    const std::string frame = segment(static_cast<std::uint16_t>(1000 + i), v6);
    EXPECT(write(out, frame.data(), frame.size()) == static_cast<ssize_t>(frame.size()));
  }
  close(out);
  std::vector<std::size_t> got(stacks.size());
  for (int turn = 0; turn < 20; ++turn)
    for (std::size_t i = 0; i < stacks.size(); ++i) {
      Packet* in[64];
      const std::size_t k = stacks[i].port->rx(in, 64);
      for (std::size_t p = 0; p < k; ++p) got[i] += (in[p]->flags & kSteered) != 0 ? 1 : 0;
      stacks[i].port->pool().free(in, k);
    }
  return got;
}

// Less than what it takes to have a BPF program, and enough for a packet socket.
void keep_net_raw() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  data[0].effective = data[0].permitted = 1U << CAP_NET_RAW;
  EXPECT(syscall(SYS_capset, &header, data) == 0);
}

// Our end of a new wire, with a queue for each stack.
std::unique_ptr<Device> open_for_many() {
  make_wire();
  auto c = config(kPort);
  c.queues = 0;
  return open_or_die(c);
}

}  // namespace

TEST_CASE("every stack has a packet socket, and each segment comes on that of its own stack") {
  Process child([](Process&) {
    const auto device = open_for_many();
    EXPECT(device->summary().empty());
    Stacks stacks;
    for (int n : {1, 3, 8}) {
      while (stacks.size() < static_cast<std::size_t>(n)) stacks.push_back(device->join());
      have_turns(stacks);
      for (const auto& s : stacks) EXPECT(s.steering->share().queues > 0);
      for (const bool v6 : {false, true}) {
        std::size_t sum = 0;
        for (const std::size_t k : spread(stacks, 240, v6)) {
          EXPECT(k > 0 || n == 1);
          sum += k;
        }
        EXPECT(sum == 240 || n == 1);  // one alone looks at nothing
      }
      for (const auto& s : stacks) EXPECT(s.steering->share().sent == 0);
    }
    // Who has gone leaves its queues and its flows to others.
    stacks.resize(3);
    have_turns(stacks);
    std::size_t sum = 0;
    for (const std::size_t k : spread(stacks, 240, false)) sum += k;
    EXPECT(sum == 240);
    for (const auto& s : stacks) EXPECT(s.steering->share().sent == 0);
    // A link that goes down and up again puts the sockets into the same order.
    run("ip link set ours down && ip link set ours up");
    have_turns(stacks);
    for (int i = 0; i < 40; ++i) have_turns(stacks), i += stacks.front().port->link_up() ? 40 : 0;
    (void)spread(stacks, 240, false);
    for (const auto& s : stacks) EXPECT(s.steering->share().sent == 0);
  });
  CHECK(child.join() == 0);
}

TEST_CASE("the segments of a flow that a stack has taken over from its home come on that stack's packet socket, until it is over") {
  Process child([](Process&) {
    const auto device = open_for_many();
    EXPECT(device->has_room());
    Stacks stacks;
    while (stacks.size() < 3) stacks.push_back(device->join());
    have_turns(stacks);
    const auto flow = [](int i) {
      return FlowKey{IpAddress::v4(10, 77, 0, 2), IpAddress::v4(10, 77, 0, 1), 80, static_cast<std::uint16_t>(1000 + i)};
    };
    for (int i = 0; i < 240; ++i) EXPECT(stacks[1].steering->settle(flow(i), true));
    EXPECT(spread(stacks, 240, false) == (std::vector<std::size_t>{0, 240, 0}));
    for (const auto& p : stacks) EXPECT(p.steering->share().sent == 0);
    for (int i = 0; i < 240; ++i) stacks[1].steering->withdraw(flow(i));
    for (const std::size_t k : spread(stacks, 240, false)) EXPECT(k > 40);
    for (const auto& p : stacks) EXPECT(p.steering->share().sent == 0);
    // What was said of the queue of one that is gone is not said of who has it next.
    for (int i = 0; i < 240; ++i) EXPECT(stacks[2].steering->settle(flow(i), true));
    stacks.pop_back();
    have_turns(stacks);
    EXPECT(spread(stacks, 240, false)[1] > 40);
    for (const auto& p : stacks) EXPECT(p.steering->share().sent == 0);
    // A quarter of the slots stays for others.
    std::size_t joined = stacks.size();
    for (; device->has_room(); ++joined) stacks.push_back(device->join());
    EXPECT(joined >= 24 && stacks.back().port != nullptr);
    stacks.push_back(device->join());
    EXPECT(stacks.back().port != nullptr);
  });
  CHECK(child.join() == 0);
}

TEST_CASE("a program that may not have a BPF program has packets all the same, and says so") {
  Process child([](Process&) {
    make_wire();
    keep_net_raw();
    auto c = config(kPort);
    c.queues = 2;
    const auto device = open_or_die(c);
    Stacks stacks;
    for (int i = 0; i < 2; ++i) stacks.push_back(device->join());
    have_turns(stacks);
    std::size_t sum = 0;
    for (const std::size_t k : spread(stacks, 100, false)) sum += k;
    EXPECT(sum == 100);
    if (device->summary().empty())  // where everybody may
      for (const auto& s : stacks) EXPECT(s.steering->share().sent == 0);
    else
      EXPECT(device->summary().find("capabilities bpf and perfmon") != std::string::npos);
  });
  CHECK(child.join() == 0);
}
