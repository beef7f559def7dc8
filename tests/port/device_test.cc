// open_device() and what is true of all devices.
#include "tests/port/device.hh"

#include <sys/sysinfo.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "stack/steering/control_block.hh"

using namespace mtcp::stack;
using namespace mtcp::test;

TEST_CASE("opening a device leaves no thread, no low descriptor, no text, and the affinity as it was") {
  Process p([](Process&) {
    cpu_set_t before, after;
    EXPECT(sched_getaffinity(0, sizeof before, &before) == 0);
    // The first CPU only: DPDK must not widen it.
    int first = 0;
    while (!CPU_ISSET(first, &before)) ++first;
    CPU_ZERO(&before);
    CPU_SET(first, &before);
    EXPECT(sched_setaffinity(0, sizeof before, &before) == 0);
    sigset_t mask_before{}, mask_after{};
    sigprocmask(SIG_BLOCK, nullptr, &mask_before);
    const auto open_before = descriptors();
    int output[2];
    EXPECT(pipe2(output, O_NONBLOCK | O_CLOEXEC) == 0);
    const int saved = fcntl(2, F_DUPFD_CLOEXEC, 10);
    dup2(output[1], 1);
    dup2(output[1], 2);

    const Time start = now();
    const auto device = open_or_die(config("net_null0", 65536));
    const double ms = std::chrono::duration<double, std::milli>(now() - start).count();

    char text[64];
    const ssize_t printed = read(output[0], text, sizeof text);
    dup2(saved, 1);
    dup2(saved, 2);
    for (const int fd : {saved, output[0], output[1]}) close(fd);
    EXPECT(printed == -1);
    fprintf(stderr, "net_null0 with 65,536 packets opened in %.0f ms\n", ms);

    EXPECT(threads() == 1);
    sched_getaffinity(0, sizeof after, &after);
    EXPECT(CPU_EQUAL(&before, &after));
    sigprocmask(SIG_BLOCK, nullptr, &mask_after);
    EXPECT(memcmp(&mask_before, &mask_after, sizeof mask_after) == 0);
    EXPECT(only_hidden_descriptors_since(open_before));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a packet sent with kKeep stays the caller's, one sent without is the pool's again") {
  Process p([](Process&) {
    const auto device = open_or_die(config("net_null0"));
    const auto port = device->claim(0, 5);
    EXPECT(port != nullptr);
    PacketPool& pool = port->pool();
    const std::size_t all = pool.available();
    EXPECT(all == pool.capacity());
    Packet* kept = make_frame(pool, "kept");
    kept->flags = kKeep;
    Packet* given = make_frame(pool, "given");
    Packet* both[] = {kept, given};
    for (int i = 0; i < 3; ++i) {
      EXPECT(port->tx(both, i == 0 ? 2 : 1) == (i == 0 ? 2u : 1u));
      EXPECT(!port->busy(*kept));
      EXPECT(has_text(*kept, "kept"));
    }
    EXPECT(pool.available() == all - 1);
    pool.free(&kept, 1);
    EXPECT(pool.available() == all);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a pool gives what it has and takes everything back") {
  Process p([](Process&) {
    const auto device = open_or_die(config("net_null0", 1000));
    const auto port = device->claim(0, 0);
    PacketPool& pool = port->pool();
    std::vector<Packet*> all(2000);
    std::size_t n = 0;
    while (const std::size_t got = pool.alloc(&all[n], std::min<std::size_t>(64, all.size() - n))) n += got;
    EXPECT(n == pool.capacity());
    EXPECT(n == 1000);
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT(all[i]->headroom() == kHeadroom && all[i]->len == 0 && all[i]->tailroom() >= 2048);
      EXPECT(all[i]->pool == &pool);
      memset(all[i]->buf, 0xff, all[i]->capacity);  // a buffer is all of it, and nothing but it
    }
    pool.free(all.data(), n);
    EXPECT(pool.available() == n);
    EXPECT(pool.alloc(all.data(), 10) == 10);
    EXPECT(all[0]->pool == &pool && all[0]->capacity >= 2048 + kHeadroom);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("each queue has one owner, and its own pool") {
  Process p([](Process&) {
    auto c = config("net_ring0");
    c.queues = 2;
    const auto device = open_or_die(c);
    EXPECT(device->queues() == 2);
    auto a = device->claim(0, 1);
    const auto b = device->claim(1, 2);
    EXPECT(a != nullptr && b != nullptr && device->claim(0, 3) == nullptr && device->claim(2, 3) == nullptr);
    EXPECT(&a->pool() != &b->pool());
    EXPECT(send(*a, "to itself"));
    EXPECT(receive(*a, "to itself"));
    EXPECT(!receive(*b, "to itself"));
    a.reset();
    EXPECT(device->claim(0, 3) != nullptr);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a device opened before a fork works in the child, and again after the child was killed") {
  Process p([](Process&) {
    const auto device = open_or_die(config("net_ring0"));
    {
      Process child([&](Process& parent) {
        const auto port = device->claim(0, 1);
        EXPECT(port != nullptr);
        EXPECT(send(*port, "hello"));
        EXPECT(receive(*port, "hello"));
        Packet* lost[512];
        EXPECT(port->pool().alloc(lost, 512) == 512);
        parent.tell();
        (void)parent.wait();
      });
      EXPECT(child.wait());
      EXPECT(device->claim(0, 2) == nullptr);
      child.kill_without_wait();
      EXPECT(
          within(seconds(5), [&] { return device->claim(0, 3) != nullptr; }));  // claimed and released again
    }
    const auto port = device->claim(0, 2);
    EXPECT(port != nullptr);
    EXPECT(port->pool().available() == port->pool().capacity());
    EXPECT(send(*port, "again"));
    EXPECT(receive(*port, "again"));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("a device has slots for 32 stacks or two for each CPU, and one that leaves makes room") {
  Process p([](Process&) {
    const auto device = open_or_die(config("net_ring0"));
    std::vector<std::unique_ptr<Port>> stacks;
    while (auto port = device->join().port) stacks.push_back(std::move(port));
    EXPECT(stacks.size() == std::clamp<std::size_t>(2 * get_nprocs(), 32, kMaxStacks));
    stacks[3].reset();
    EXPECT(device->join().port != nullptr);
    Process child([&](Process& parent) {
      for (auto& s : stacks) s.reset();  // the parent's: nothing happens to them
      parent.tell();
      (void)parent.wait();
    });
    EXPECT(child.wait());
    stacks[3] = device->join().port;
    EXPECT(stacks[3] != nullptr && device->join().port == nullptr);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("stacks send and receive through queues whose packets are not theirs") {
  Process p([](Process&) {
    auto c = config("net_ring0");
    c.queues = 2;
    const auto device = open_or_die(c);
    auto first = device->join().port;
    EXPECT(first != nullptr && send(*first, "alone") && receive(*first, "alone"));
    // It has both queues, and gives the second's number's owner one when it comes.
    auto second = device->join().port;
    EXPECT(second != nullptr && &first->pool() != &second->pool());
    PacketPool& pool = second->pool();
    for (int i = 0; i < 2000; ++i) {
      const std::string text = "number " + std::to_string(i);
      EXPECT(send(*second, text));
      EXPECT(within(seconds(1), [&] { return receive(*second, text) || receive(*first, text); }));
    }
    EXPECT(pool.available() == pool.capacity());
    // What it had goes back to the first.
    first.reset();
    EXPECT(within(seconds(1), [&] { return send(*second, "left") && receive(*second, "left"); }));
    EXPECT(pool.available() == pool.capacity());
    first = device->join().port;
    EXPECT(first != nullptr && first->pool().available() == first->pool().capacity());
    EXPECT(send(*first, "again"));
    EXPECT(within(seconds(1), [&] { return receive(*first, "again") || receive(*second, "again"); }));
  });
  CHECK(p.join() == 0);
}

TEST_CASE("huge pages serve over a fork as others do") {
  constexpr int kNone = 77;
  Process p([](Process&) {
    auto c = config("net_ring0");
    c.hugepages = 1;
    std::string message;
    const auto device = open_device(c, message);
    if (device == nullptr && message.find("nr_hugepages") != std::string::npos) _exit(kNone);
    EXPECT(device != nullptr);
    {
      Process child([&](Process& parent) {
        const auto port = device->claim(0, 1);
        EXPECT(port != nullptr && send(*port, "hello") && receive(*port, "hello"));
        parent.tell();
        (void)parent.wait();
      });
      EXPECT(child.wait());
      child.kill_hard();
    }
    const auto port = device->claim(0, 2);
    EXPECT(port != nullptr && port->pool().available() == port->pool().capacity());
    EXPECT(send(*port, "again") && receive(*port, "again"));
  });
  const int result = p.join();
  if (result == kNone) {
    WARN("skipped: 30 MB of huge pages are not free");
  } else {
    CHECK(result == 0);
  }
}

TEST_CASE("a device that cannot be opened says why and what mends it") {
  Process p([](Process&) {
    EXPECT(refusal(config("veth-srv")).find("neither a DPDK device string") != std::string::npos);
    EXPECT(refusal(config("net_af_packet0")).find("names no interface") != std::string::npos);
    EXPECT(refusal(config("net_af_packet0,iface=mtcp-none")).find("ip -br link") != std::string::npos);
    auto c = config("net_null0");
    c.mtu = 20;
    EXPECT(refusal(c).find("MTU") != std::string::npos);
    c = config("net_null0", 4 << 20);
    c.hugepages = 1;  // 10 GB of them
    EXPECT(refusal(c).find("nr_hugepages") != std::string::npos);
    EXPECT(refusal(config("net_nonsense0")).find("net_nonsense0") != std::string::npos);
  });
  CHECK(p.join() == 0);
}

TEST_CASE("after a device that failed to open, another can be opened") {
  Process p([](Process&) {
    EXPECT(refusal(config("net_nonsense0")) != "it opened");
    const auto device = open_or_die(config("net_null0"));
    EXPECT(device->claim(0, 0) != nullptr);
  });
  CHECK(p.join() == 0);
}
