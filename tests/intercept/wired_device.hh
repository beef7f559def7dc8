// Two devices with a wire between them, each shared by the stacks of one Process, whose threads may all be at it at the same time:
// steering and its messages are the real ones.
#pragma once

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "stack/packet/heap_pool.hh"
#include "stack/port/device.hh"
#include "stack/steering/steering_port.hh"
#include "tests/bare_port.hh"

namespace mtcp::intercept::testing {

class WireEnd final : public stack::SharedDevice {
 public:
  using Frame = std::vector<std::byte>;

  WireEnd(std::uint8_t number, std::uint32_t queues, std::uint32_t slots)
      : shape_{1514, slots},
        memory_(static_cast<std::byte*>(::mmap(nullptr, stack::ControlBlock::memory(shape_), PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        control_(memory_, shape_, {number, 2, 3, 4}),
        mac_{{2, 0, 0, 0, 3, number}} {
    for (std::uint32_t i = 0; i < queues; ++i) queues_.push_back(std::make_unique<Queue>());
    for (std::uint32_t i = 0; i < slots; ++i) wake_.push_back(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  }
  ~WireEnd() override {
    for (const int fd : wake_) ::close(fd);
    ::munmap(memory_, stack::ControlBlock::memory(shape_));
  }
  WireEnd(const WireEnd&) = delete;
  WireEnd& operator=(const WireEnd&) = delete;

  stack::ControlBlock& control() override { return control_; }
  [[nodiscard]] std::uint64_t self() const override { return 1; }
  [[nodiscard]] bool alive(std::uint64_t) const override { return true; }
  [[nodiscard]] std::uint32_t queues() const override { return static_cast<std::uint32_t>(queues_.size()); }
  std::unique_ptr<stack::Port> claim_queue(std::uint32_t queue, std::uint32_t stack) override;
  stack::PacketPool* pool(std::uint32_t stack) override {
    pools_[stack] = std::make_unique<stack::HeapPool>(4096);
    return pools_[stack].get();
  }
  [[nodiscard]] int wake_descriptor(std::uint32_t stack) const override { return wake_[stack]; }
  void wake(std::uint32_t stack) override { ring(wake_[stack]); }
  void clear_wake(std::uint32_t stack) override { silence(wake_[stack]); }
  [[nodiscard]] stack::MacAddress mac() const override { return mac_; }
  [[nodiscard]] std::uint32_t mtu() const override { return 1500; }
  [[nodiscard]] bool tx_checksum_offload() const override { return false; }

  WireEnd* peer = nullptr;
  bool kernel_answers = false;  // ARP questions, in place of the stacks

 private:
  friend class WireQueue;
  struct Queue {
    Queue() : bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~Queue() { ::close(bell); }
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;
    const int bell;
    std::atomic<bool> taken{false};
    std::mutex lock;
    std::deque<Frame> waiting;
  };
  static void ring(int fd) {
    const std::uint64_t one = 1;
    (void)!::write(fd, &one, sizeof one);
  }
  static void silence(int fd) {
    std::uint64_t count = 0;
    (void)!::read(fd, &count, sizeof count);
  }
  static bool is_arp_question(const Frame& f) { return f.size() >= 42 && f[12] == std::byte{8} && f[13] == std::byte{6} && f[21] == std::byte{1}; }
  // From whom it asks about, to who asks.
  [[nodiscard]] Frame arp_answer(const Frame& question) const {
    Frame answer = question;
    std::copy_n(&question[22], 10, &answer[32]);  // its sender
    std::copy_n(&question[6], 6, answer.data());
    for (const std::size_t at : {std::size_t{6}, std::size_t{22}}) std::copy(mac_.bytes.begin(), mac_.bytes.end(), reinterpret_cast<std::uint8_t*>(&answer[at]));
    std::copy_n(&question[38], 4, &answer[28]);
    answer[21] = std::byte{2};
    return answer;
  }
  // Not by steering's hash: many are to be passed on.
  void receive(Frame frame) {
    if (kernel_answers && is_arp_question(frame)) return peer->receive(arp_answer(frame));
    std::uint32_t sum = 0;
    for (std::size_t i = 26; i < std::min<std::size_t>(frame.size(), 38); ++i) sum = sum * 31 + std::to_integer<std::uint32_t>(frame[i]);
    Queue& q = *queues_[(sum >> 3) % queues()];
    {
      const std::lock_guard guard(q.lock);
      q.waiting.push_back(std::move(frame));
    }
    ring(q.bell);
  }

  const stack::ControlBlock::Shape shape_;
  std::byte* memory_;
  stack::ControlBlock control_;
  const stack::MacAddress mac_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::vector<int> wake_;
  std::array<std::unique_ptr<stack::HeapPool>, stack::kMaxStacks> pools_;
};

class WireQueue final : public test::BarePort {
 public:
  WireQueue(WireEnd& end, WireEnd::Queue& queue, stack::PacketPool& pool) : BarePort(pool), end_(end), queue_(queue) {}
  ~WireQueue() override { queue_.taken = false; }

  std::size_t rx(stack::Packet** out, std::size_t max) override {
    const std::lock_guard guard(queue_.lock);
    std::size_t n = 0;
    for (; n < max && !queue_.waiting.empty() && pool_.alloc(out + n, 1) == 1; queue_.waiting.pop_front(), ++n) {
      std::copy(queue_.waiting.front().begin(), queue_.waiting.front().end(), out[n]->data);
      out[n]->len = static_cast<std::uint32_t>(queue_.waiting.front().size());
    }
    return n;
  }
  std::size_t tx(stack::Packet* const* packets, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) {
      stack::Packet* p = packets[i];
      end_.peer->receive(WireEnd::Frame(p->data, p->data + p->len));
      if ((p->flags & stack::kKeep) == 0) p->pool->free(&p, 1);
    }
    return n;
  }
  bool arm() override {
    WireEnd::silence(queue_.bell);
    const std::lock_guard guard(queue_.lock);
    return queue_.waiting.empty();
  }
  [[nodiscard]] std::span<const int> pollable() const override { return {&queue_.bell, 1}; }
  [[nodiscard]] stack::MacAddress mac() const override { return end_.mac(); }
  [[nodiscard]] std::uint32_t mtu() const override { return end_.mtu(); }

 private:
  WireEnd& end_;
  WireEnd::Queue& queue_;
};

inline std::unique_ptr<stack::Port> WireEnd::claim_queue(std::uint32_t queue, std::uint32_t stack) {
  if (queues_[queue]->taken.exchange(true)) return nullptr;
  return std::make_unique<WireQueue>(*this, *queues_[queue], *pools_[stack]);
}

// One wire at a time: a Process opens its end by the name in its port string, "wire0" or "wire1".
class TestWire {
 public:
  explicit TestWire(std::uint32_t queues = 2, std::uint32_t slots = 8) : ends_{WireEnd(0, queues, slots), WireEnd(1, queues, slots)} {
    ends_[0].peer = &ends_[1];
    ends_[1].peer = &ends_[0];
    current_ = this;
  }
  ~TestWire() { current_ = nullptr; }
  TestWire(const TestWire&) = delete;
  TestWire& operator=(const TestWire&) = delete;

  [[nodiscard]] WireEnd& end(std::size_t i) { return ends_[i]; }
  std::atomic<std::uint32_t> cpus{0};  // as whoever opened an end last had them
  static std::unique_ptr<stack::Device> open(const stack::DeviceConfig& config, std::string& /*message*/) {
    current_->cpus = config.cpus;
    return std::make_unique<EndDevice>(current_->ends_[config.port == "wire1" ? 1 : 0]);
  }

 private:
  class EndDevice final : public stack::Device {
   public:
    explicit EndDevice(WireEnd& end) : end_(end) {}
    [[nodiscard]] std::uint32_t queues() const override { return end_.queues(); }
    stack::OwnedAttachment join() override {
      auto port = stack::SteeringPort::join(end_);
      stack::Steering* const steering = port.get();
      return {std::move(port), steering};
    }
    // As if it could: what comes on another's queue is passed on by messages, which is what the tests want.
    [[nodiscard]] bool points_flows() const override { return true; }
    [[nodiscard]] bool has_room() const override { return end_.control().members().size() < end_.control().slots(); }
    [[nodiscard]] std::optional<std::array<std::uint64_t, 4>> secrets() const override { return end_.control().secrets(); }
    std::unique_ptr<stack::Port> claim(std::uint32_t, std::uint32_t) override { return nullptr; }

   private:
    WireEnd& end_;
  };
  static inline TestWire* current_ = nullptr;
  std::array<WireEnd, 2> ends_;
};

}  // namespace mtcp::intercept::testing
