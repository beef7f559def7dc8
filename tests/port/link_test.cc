// What happens to an interface of the kernel while a port is on it, and what it must not be when it is opened.
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <catch2/catch.hpp>
#include <functional>
#include <initializer_list>

#include "stack/port/dpdk/af_xdp/xdp_program.hh"
#include "stack/port/dpdk/device_state.hh"
#include "tests/port/device.hh"
#include "tests/port/wire.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

namespace {

// For a process of its own, in a namespace of its own.
void in_namespace(const std::function<void()>& body) {
  Process p([&](Process&) {
    make_wire();
    body();
  });
  CHECK(p.join() == 0);
}

DeviceConfig at(const std::string& port, std::vector<std::uint32_t> addresses = {0x0a4d0002}) {
  DeviceConfig c = config(port);
  c.queues = 1;
  c.addresses = std::move(addresses);
  return c;
}

// How often a program that has nothing to do wakes up in a second.
int idle_turns(Port& port) {
  int turns = 0;
  for (const Time end = now() + seconds(1); now() < end; ++turns) {
    (void)sleep_on(port, milliseconds(100));
    (void)receive(port, "");
  }
  return turns;
}

bool becomes(Port& port, bool up) {
  return within(seconds(2), [&] {
    (void)sleep_on(port, milliseconds(10));
    (void)receive(port, "");
    return port.link_up() == up;
  });
}

std::string next_notice(Port& port, bool& conflict, Duration limit = seconds(3)) {
  Port::Notice n;
  (void)within(limit, [&] {
    (void)sleep_on(port, milliseconds(20));
    (void)receive(port, "");
    return !(n = port.notice()).text.empty();
  });
  conflict = n.address_conflict;
  return n.text;
}

// For this process and whatever it starts.
void give_up(std::initializer_list<unsigned> capabilities) {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2];
  EXPECT(syscall(SYS_capget, &head, data) == 0);
  for (const unsigned c : capabilities) {
    EXPECT(prctl(PR_CAPBSET_DROP, c) == 0);
    data[c / 32].effective &= ~(1U << c % 32);
    data[c / 32].permitted &= ~(1U << c % 32);
  }
  EXPECT(syscall(SYS_capset, &head, data) == 0);
}

// An IPv4 packet from a stranger on the other end, for 10.77.0.2; it may be forwarded a few times.
std::string frame_to_the_stack() {
  std::string f("\x02\0\0\0\0\x02\x02\0\0\0\0\x09\x08\0", 14);
  unsigned char ip[20] = {0x45, 0, 0, 46, 0, 1, 0, 0, 8, 253, 0, 0, 10, 77, 0, 9, 10, 77, 0, 2};
  unsigned sum = 0;
  for (int i = 0; i < 20; i += 2) sum += ip[i] * 256U + ip[i + 1];
  sum = ~(sum % 0xffff) & 0xffff;
  ip[10] = static_cast<unsigned char>(sum >> 8);
  ip[11] = static_cast<unsigned char>(sum);
  f.append(reinterpret_cast<const char*>(ip), sizeof ip);
  f.resize(60);
  return f;
}

int count_ipv4(Port& port, Duration time) {
  int count = 0;
  for (const Time end = now() + time; now() < end;) {
    (void)sleep_on(port, milliseconds(20));
    Packet* packets[32];
    const std::size_t n = port.rx(packets, 32);
    for (std::size_t i = 0; i < n; ++i) count += packets[i]->data[12] == std::byte{8} && packets[i]->data[13] == std::byte{0} ? 1 : 0;
    port.pool().free(packets, n);
  }
  return count;
}

}  // namespace

TEST_CASE("a link that goes down and up: nobody spins, and the first frame after it arrives") {
  const std::string device_string = GENERATE(kPort, kXdpPort);
  in_namespace([&] {
    const auto device = open_or_die(at(device_string));
    const auto port = device->claim(0, 1);
    const int kernel = packet_socket("peer");
    EXPECT(becomes(*port, true));
    for (int round = 0; round < 2; ++round) {
      run("ip link set ours down");
      EXPECT(becomes(*port, false));
      EXPECT(idle_turns(*port) < 40);
      // What is to be sent meanwhile waits.
      Packet* waiting = make_frame(port->pool(), "waiting");
      EXPECT(port->tx(&waiting, 1) == 0);
      run("ip link set ours up");
      EXPECT(becomes(*port, true));
      EXPECT(port->tx(&waiting, 1) == 1);
      EXPECT(within(seconds(2), [&] { return kernel_receives(kernel, "waiting"); }));
      EXPECT(idle_turns(*port) < 40);
    }
  });
}

TEST_CASE("a link with a carrier is up, though the kernel does not say yet that the interface is running") {
  const std::string device_string = GENERATE(kPort, kXdpPort);
  in_namespace([&] {
    // What a new interface may be for a second.
    run("ip link set ours down && ip link set ours mode dormant && ip link set ours up");
    const auto device = open_or_die(at(device_string));
    const auto port = device->claim(0, 1);
    const int kernel = packet_socket("peer");
    (void)idle_turns(*port);
    EXPECT(port->link_up());
    EXPECT(send(*port, "early"));
    EXPECT(within(seconds(2), [&] { return kernel_receives(kernel, "early"); }));
    run("ip link set peer down");
    EXPECT(becomes(*port, false));
    run("ip link set peer up");
    EXPECT(becomes(*port, true));
  });
}

TEST_CASE("the ports of a process watch their link together, and the child of a fork watches it anew") {
  in_namespace([] {
    dpdk::DeviceState state;
    auto first = state.watch("ours");
    const auto second = state.watch("ours");
    EXPECT(first == second && state.watch("peer") != first);
    first = state.watch("ours");
    run("ip link set ours down");
    first->look(now());
    EXPECT(!first->up() && state.watch("ours") == first);
    Process child([&](Process&) {
      const auto its = state.watch("ours");
      EXPECT(its != first && its->up());
      its->look(now());
      EXPECT(!its->up() && state.watch("ours") == its);
    });
    EXPECT(child.join() == 0);
    const dpdk::LinkWatch* const before = first.get();
    EXPECT(state.watch("ours").get() == before);
    first.reset();
    EXPECT(state.watch("ours")->up());  // nobody had it any more
  });
}

TEST_CASE("two ports of a process see the same link, whichever looks at it") {
  in_namespace([] {
    DeviceConfig c = at(kPort);
    c.queues = 2;
    const auto device = open_or_die(c);
    const auto one = device->claim(0, 1), other = device->claim(1, 2);
    EXPECT(becomes(*one, true));
    run("ip link set ours down");
    EXPECT(becomes(*one, false));
    EXPECT(!other->link_up());
    run("ip link set ours up");
    EXPECT(becomes(*other, true));
    EXPECT(one->link_up());
  });
}

TEST_CASE("an error that a link left behind while nobody looked does not cost the next frame") {
  in_namespace([] {
    const auto device = open_or_die(at(kPort));
    const auto port = device->claim(0, 1);
    const int kernel = packet_socket("peer");
    (void)send(*port, "before");
    run("ip link set ours down && ip link set ours up");
    Packet* p = make_frame(port->pool(), "after");
    EXPECT(port->tx(&p, 1) == 1);
    EXPECT(port->status().tx_dropped == 0);
    EXPECT(within(seconds(2), [&] { return kernel_receives(kernel, "after"); }));
  });
}

TEST_CASE("every MTU that can be configured, on every device") {
  const std::string kind = GENERATE("af_packet", "af_xdp", "memif");
  const std::uint32_t mtu = GENERATE(576u, 1280u, 1500u, 1501u, 1954u, 1955u, 2048u, 2766u, 2767u, 4000u, 4096u, 8192u, 9000u, 9216u, 9600u);
  CAPTURE(kind, mtu);
  const std::string text(mtu - 20, 'x');
  if (kind == "memif") {
    const auto wire = [&](const char* role) {
      DeviceConfig c = config(std::string("net_memif0,role=") + role + ",socket=mtcp-mtu-" + std::to_string(getppid()));
      c.mtu = mtu;
      return open_or_die(c);
    };
    Process server([&](Process& parent) {
      const auto device = wire("server");
      const auto port = device->claim(0, 1);
      while (!parent.told())
        if (receive(*port, text)) (void)send(*port, text);
    });
    Process client([&](Process&) {
      const auto device = wire("client");
      const auto port = device->claim(0, 1);
      EXPECT(port->mtu() == mtu);
      EXPECT(within(seconds(10), [&] {
        (void)send(*port, text);
        usleep(1000);
        return receive(*port, text);
      }));
    });
    CHECK(client.join() == 0);
    server.tell();
    CHECK(server.join() == 0);
    return;
  }
  in_namespace([&] {
    // A program on the interface wants packets that fit its frames, from either end.
    const std::string wire = std::to_string(kind == "af_packet" ? 9600 : mtu);
    run(("ip link set ours mtu " + wire + " && ip link set peer mtu " + wire).c_str());
    DeviceConfig c = at(kind == "af_packet" ? kPort : kXdpPort);
    c.mtu = mtu;
    if (kind == "af_xdp" && mtu > 2766) {
      EXPECT(refusal(c).find("an MTU of " + std::to_string(mtu) + " is too large for AF_XDP") != std::string::npos);
      return;
    }
    const auto device = open_or_die(c);
    const auto port = device->claim(0, 1);
    const int kernel = packet_socket("peer");
    EXPECT(port->mtu() == mtu);
    EXPECT(send(*port, text));
    std::vector<char> buffer(16384);
    EXPECT(within(seconds(5), [&] { return recv(kernel, buffer.data(), buffer.size(), 0) == static_cast<ssize_t>(14 + text.size()); }));
    const std::string frame = raw_frame(text);
    EXPECT(within(seconds(5), [&] {
      EXPECT(::send(kernel, frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size()));
      usleep(1000);
      return receive(*port, text);
    }));
  });
}

TEST_CASE("an interface whose MTU becomes smaller, or larger again") {
  in_namespace([] {
    const auto device = open_or_die(at(kPort));
    const auto port = device->claim(0, 1);
    const auto follows = [&](std::uint32_t mtu) {
      return within(seconds(2), [&] {
        (void)receive(*port, "");
        return port->mtu() == mtu;
      });
    };
    run("ip link set ours mtu 1000");
    EXPECT(follows(1000));
    run("ip link set ours mtu 9000");
    EXPECT(follows(1500));
  });
}

TEST_CASE("an address that is the kernel's as well is refused, with the line that mends it") {
  in_namespace([] {
    run("ip addr add 10.77.0.2/24 dev ours");
    bool misconfigured = false;
    DeviceConfig c = at(kPort);
    c.misconfigured = &misconfigured;
    const std::string why = refusal(c);
    EXPECT(why.find("run: sudo ip addr del 10.77.0.2/24 dev ours") != why.npos);
    EXPECT(misconfigured);
  });
}

TEST_CASE("an address that the kernel is given later is told, once") {
  in_namespace([] {
    const auto device = open_or_die(at(kPort));
    const auto port = device->claim(0, 1);
    bool conflict = true;
    EXPECT(next_notice(*port, conflict, milliseconds(1300)).empty());
    run("ip addr add 10.77.0.2/32 dev lo");
    std::string text = next_notice(*port, conflict);
    EXPECT(conflict && text.find("sudo ip addr del 10.77.0.2/32 dev lo") != text.npos);
    EXPECT(next_notice(*port, conflict, milliseconds(1300)).empty());
    run("ip addr del 10.77.0.2/32 dev lo");
    EXPECT(next_notice(*port, conflict, milliseconds(1300)).empty());
    run("ip addr add 10.77.0.2/24 dev ours");
    text = next_notice(*port, conflict);
    EXPECT(conflict && text.find("dev ours") != text.npos);
  });
}

TEST_CASE("a kernel that forwards does not get what comes for the stack; where that can't be had, it is told, and the line to type ends it") {
  const bool guarded = GENERATE(true, false);
  in_namespace([&] {
    if (guarded && !dpdk::may_classify()) return;  // before Linux 6.6
    run("ip addr add 10.77.0.3/24 dev ours && sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.ours.rp_filter=0");
    if (!guarded) give_up({CAP_SYS_ADMIN, CAP_BPF});
    const auto device = open_or_die(at(kPort));
    const auto port = device->claim(0, 1);
    // What is forwarded comes once more, over the other end.
    const int stranger = packet_socket("peer");
    const std::string frame = frame_to_the_stack();
    EXPECT(::send(stranger, frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size()));
    const int received = count_ipv4(*port, milliseconds(300));
    EXPECT(guarded ? received == 1 : received > 1);
    bool conflict = true;
    const std::string text = next_notice(*port, conflict, milliseconds(1300));
    if (guarded) {
      EXPECT(text.empty());
      return;
    }
    const std::string line = "run: sudo ip route add blackhole 10.77.0.2";
    EXPECT(!conflict && text.ends_with(line));
    EXPECT(next_notice(*port, conflict, milliseconds(1300)).empty());
    run(line.substr(strlen("run: sudo ")).c_str());
    EXPECT(next_notice(*port, conflict, milliseconds(1300)).empty());
    EXPECT(::send(stranger, frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size()));
    EXPECT(count_ipv4(*port, milliseconds(300)) == 1);
    run("ip route del blackhole 10.77.0.2");
    EXPECT(!next_notice(*port, conflict).empty());
  });
}

TEST_CASE("a second program on an interface is refused and told who has it") {
  in_namespace([] {
    Process first([](Process& parent) {
      const auto device = open_or_die(at(kPort));
      parent.tell();
      (void)parent.wait();
    });
    EXPECT(first.wait());
    bool in_use = false;
    DeviceConfig c = at(kPort);
    c.in_use = &in_use;
    const std::string why = refusal(c);
    EXPECT(in_use && why.find("process " + std::to_string(first.pid()) + " or its children") != why.npos);
    first.kill_hard();
    (void)open_or_die(c);
  });
}
