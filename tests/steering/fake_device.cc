#include "tests/bare_port.hh"
#include "tests/steering/fake_device.hh"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace mtcp::test {
namespace {

constexpr std::size_t kFrame = 1518;

// Mapped and not allocated: most of a control block is never touched.
std::byte* map_control_block(std::size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::runtime_error("no memory for a control block");
  return static_cast<std::byte*>(at);
}

struct FakeQueue : BarePort {
  FakeQueue(FakeDevice& d, std::uint32_t n, std::uint32_t s) : BarePort(d.pools[s]), device(d), number(n), stack(s) {}
  ~FakeQueue() override {
    if (device.queue_owner[number] == device.process) device.queue_owner[number] = 0;
  }

  std::size_t rx(Packet** out, std::size_t max) override {
    std::size_t n = 0;
    for (auto& frames = device.waiting[number]; n < max && !frames.empty(); frames.pop_front()) {
      if (device.pools[stack].alloc(out + n, 1) == 0) throw std::runtime_error("no packets");
      std::memcpy(out[n]->data, frames.front().data(), frames.front().size());
      out[n]->len = static_cast<std::uint32_t>(frames.front().size());
      if (!device.hashes.empty()) {
        out[n]->flags = kRxHash;
        out[n]->payload_sum = device.hashes.front();
        device.hashes.pop_front();
      }
      ++n;
    }
    return n;
  }
  std::size_t tx(Packet* const* packets, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) {
      Packet* p = packets[i];
      device.sent.emplace_back(p->data, p->end());
      if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
    }
    return n;
  }
  bool arm() override { return device.waiting[number].empty(); }
  [[nodiscard]] std::span<const int> pollable() const override { return {&descriptor, 1}; }
  [[nodiscard]] MacAddress mac() const override { return device.mac(); }
  [[nodiscard]] std::uint32_t mtu() const override { return device.mtu(); }

  FakeDevice& device;
  const std::uint32_t number, stack;
  int descriptor = 200 + static_cast<int>(number);
};

}  // namespace

FakeDevice::FakeDevice(std::uint32_t queue_count, std::uint32_t slots, std::uint32_t entries)
    : waiting(queue_count),
      queue_owner(queue_count),
      shape_{kFrame, slots, entries},
      memory_(map_control_block(ControlBlock::memory(shape_))),
      control_(memory_, shape_, {1, 2, 3, 4}) {
  for (std::uint32_t i = 0; i < slots; ++i) pools.emplace_back(1024);
}

bool FakeWatch::watch(std::span<const std::uint64_t> processes) {
  const bool can = processes.size() <= device.watchable;
  watched.assign(processes.begin(), can ? processes.end() : processes.begin());
  return can;
}

bool FakeWatch::told() const {
  return std::ranges::any_of(watched, [this](std::uint64_t p) { return device.dead.contains(p); });
}

FakeDevice::~FakeDevice() {
  for (SteeringPort* port : killed_) {
    process = UINT64_MAX;  // nobody's: nothing is given back
    delete port;
  }
  munmap(memory_, ControlBlock::memory(shape_));
}

std::unique_ptr<Port> FakeDevice::claim_queue(std::uint32_t queue, std::uint32_t stack) {
  std::uint64_t& owner = queue_owner[queue];
  if (owner != 0 && alive(owner)) return nullptr;
  owner = process;
  return std::make_unique<FakeQueue>(*this, queue, stack);
}

std::unique_ptr<SteeringPort> FakeDevice::join(std::uint64_t p) {
  process = p;
  return SteeringPort::join(*this);
}

void FakeDevice::kill(std::unique_ptr<SteeringPort> port, std::uint64_t p) {
  dead.insert(p);
  killed_.push_back(port.release());
}

Frame tcp_frame(std::uint8_t host, std::uint16_t port) {
  static constexpr unsigned char kHead[] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0,  // Ethernet
                                            0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 0, 10, 0, 0, 1};
  Frame f(54);
  std::memcpy(f.data(), kHead, sizeof kHead);
  f[29] = std::byte{host};
  f[34] = static_cast<std::byte>(port >> 8);
  f[35] = static_cast<std::byte>(port);
  f[37] = std::byte{80};
  return f;
}

FlowKey flow(std::uint8_t host, std::uint16_t port) {
  return {IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, host), 80, port};
}

}  // namespace mtcp::test
