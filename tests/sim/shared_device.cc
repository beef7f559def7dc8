#include "tests/bare_port.hh"
#include "tests/sim/shared_device.hh"

#include <sys/mman.h>

#include <cstring>
#include <stdexcept>

namespace mtcp::sim {
namespace {

constexpr std::size_t kFrame = 1514;
constexpr std::size_t kQueue = 1024;    // frames that one holds
constexpr std::size_t kPackets = 8192;  // of each stack

// Mapped and not allocated: most of a control block is never touched.
std::byte* map_control_block(std::size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::runtime_error("no memory for a control block");
  return static_cast<std::byte*>(at);
}

}  // namespace

class SimQueue final : public test::BarePort {
 public:
  SimQueue(SimSharedDevice& d, std::uint32_t number, std::uint32_t stack)
      : BarePort(d.pool_of(stack)), device_(d), number_(number), process_(d.control().slot(stack).owner) {}
  // A process that is killed gives nothing back.
  ~SimQueue() override {
    if (device_.alive(process_)) device_.queues_[number_].owner = 0;
  }

  std::size_t rx(Packet** out, std::size_t max) override {
    device_.spread();
    auto& waiting = device_.queues_[number_].waiting;
    std::size_t n = 0;
    for (; n < max && !waiting.empty() && pool_.alloc(out + n, 1) == 1; waiting.pop_front(), ++n) {
      std::memcpy(out[n]->data, waiting.front().data(), waiting.front().size());
      out[n]->len = static_cast<std::uint32_t>(waiting.front().size());
    }
    return n;
  }
  std::size_t tx(Packet* const* packets, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) {
      Packet* p = packets[i];
      device_.wire_.send(device_.number_, Wire::Frame(p->data, p->data + p->len));
      if ((p->flags & kKeep) == 0) p->pool->free(&p, 1);
    }
    return n;
  }
  [[nodiscard]] MacAddress mac() const override { return device_.mac_; }
  [[nodiscard]] std::uint32_t mtu() const override { return device_.mtu(); }

 private:
  SimSharedDevice& device_;
  std::uint32_t number_;
  std::uint64_t process_;
};

SimSharedDevice::SimSharedDevice(Wire& wire, std::uint8_t number, std::uint32_t queues, std::uint32_t slots,
                                 std::uint64_t seed)
    : wire_(wire),
      number_(wire.add_port({})),
      mac_{{2, 0, 0, 0, 2, number}},
      queues_(queues),
      pools_(slots),
      shape_{kFrame, slots},
      memory_(map_control_block(ControlBlock::memory(shape_))),
      control_(memory_, shape_, {seed, seed ^ 1, seed ^ 2, seed ^ 3}),
      hash_(FlowHash::make_key(control_.secrets())) {
  wire.set_mac(number_, mac_);
}

SimSharedDevice::~SimSharedDevice() { munmap(memory_, ControlBlock::memory(shape_)); }

std::unique_ptr<Port> SimSharedDevice::claim_queue(std::uint32_t queue, std::uint32_t stack) {
  std::uint64_t& owner = queues_[queue].owner;
  if (owner != 0 && alive(owner)) return nullptr;
  owner = control_.slot(stack).owner;
  return std::make_unique<SimQueue>(*this, queue, stack);
}

PacketPool* SimSharedDevice::pool(std::uint32_t stack) {
  pools_[stack] = std::make_unique<HeapPool>(kPackets);  // of the one before, all must have come back
  return pools_[stack].get();
}

void SimSharedDevice::lose_pool(std::uint32_t stack) {
  static auto& lost = *new std::vector<std::unique_ptr<HeapPool>>;
  lost.push_back(std::move(pools_[stack]));
}

bool SimSharedDevice::redirect(std::span<const std::uint8_t> queues) {
  if (!is_card_) return false;
  table_.assign(queues.begin(), queues.end());
  ++times_redirected_;
  return true;
}

std::uint32_t SimSharedDevice::queue_for(std::span<const std::byte> frame) const {
  if (const FrameKind kind = classify(frame, hash_); !table_.empty() && kind.kind == FrameKind::Kind::flow)
    return table_[kind.hash % table_.size()];
  std::uint32_t sum = 0;  // addresses and ports, whatever the frame is
  for (std::size_t i = 26; i < std::min<std::size_t>(frame.size(), 38); ++i)
    sum = sum * 31 + std::to_integer<std::uint32_t>(frame[i]);
  return (sum >> 3) % queues();
}

void SimSharedDevice::spread() {
  while (auto frame = wire_.receive(number_)) {
    auto& waiting = queues_[queue_for(*frame)].waiting;
    if (waiting.size() < kQueue) waiting.push_back(std::move(*frame));
  }
}

bool SimSharedDevice::busy() const {
  for (const Queue& q : queues_)
    if (!q.waiting.empty() && q.owner != 0 && alive(q.owner)) return true;
  for (std::uint32_t i = 0; i < control_.slots(); ++i) {
    const auto& slot = control_.slot(i);
    if (slot.owner != 0 && alive(slot.owner) && slot.senders != 0) return true;
  }
  return false;
}

}  // namespace mtcp::sim
