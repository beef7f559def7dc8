#include "stack/port/dpdk/af_xdp/umem_frames.hh"

#include <rte_mempool.h>
#include <sys/mman.h>

#include <memory>

#include "stack/port/dpdk/eal/eal.hh"
#include "stack/port/dpdk/pool.hh"

namespace mtcp::stack::dpdk {

std::unique_ptr<UmemFrames> UmemFrames::create(Xsk& socket, MbufPool& pool, std::uint32_t send, std::span<Mark> marks) {
  std::vector<void*> objects(send);
  set_thread_number(0);
  if (marks.size() < socket.size / socket.frame_size + 1) return nullptr;
  if (rte_mempool_get_bulk(pool.mempool(), objects.data(), send) != 0) return nullptr;
  std::unique_ptr<UmemFrames> frames(new UmemFrames(socket, marks));  // zeros: all for receiving
  const std::uint32_t header = pool.mempool()->header_size;
  const auto address = [&](void* object) {
    return static_cast<std::uint64_t>(static_cast<std::byte*>(object) - socket.area) - header;
  };
  frames->first_ = address(objects.front()) % socket.frame_size;
  for (void* object : objects) marks[frames->frame_at(address(object))] = mark(Use::free, 0);
  frames->send_frames_ = send;
  frames->receive_frames_ = load(socket.fill.producer);
  return frames;
}

std::unique_ptr<UmemFrames> UmemFrames::adopt(Xsk& socket, std::span<Mark> marks, const Terms& terms) {
  if (terms.first >= socket.frame_size || marks.size() < socket.size / socket.frame_size + 1 ||
      terms.send_frames > marks.size())
    return nullptr;
  std::unique_ptr<UmemFrames> frames(new UmemFrames(socket, marks));
  frames->first_ = terms.first;
  frames->receive_frames_ = terms.receive_frames;
  frames->send_frames_ = terms.send_frames;
  return frames;
}

// The lower 48 bits are where the frame begins, those above how far in its data does
// (XDP_UMEM_UNALIGNED_CHUNK_FLAG).
std::uint32_t UmemFrames::frame_at(std::uint64_t address) const {
  return static_cast<std::uint32_t>((address & XSK_UNALIGNED_BUF_ADDR_MASK) / socket_.frame_size);
}

std::uint32_t UmemFrames::received() const { return load(socket_.fill.producer) - receive_frames_; }

void UmemFrames::take_over(std::vector<std::uint32_t>& free) {
  store(socket_.rx.consumer, received());
  free.clear();
  collect(free);  // before the marks are looked at: some of these may have been cleared already
  free.clear();
  const std::uint32_t next = load(socket_.tx.producer);
  for (std::uint32_t i = 0; i < marks_.size() && address(i) + socket_.frame_size <= socket_.size; ++i) {
    const std::uint64_t m = marks_[i].load(std::memory_order_acquire);
    const auto use = static_cast<Use>(m >> 32);
    const bool unpublished =
        use == Use::sent && static_cast<std::int32_t>(static_cast<std::uint32_t>(m) - next) >= 0;
    if (unpublished) marks_[i].store(mark(Use::free, 0), std::memory_order_relaxed);
    if (unpublished || use == Use::free) free.push_back(i);
  }
}

void UmemFrames::collect(std::vector<std::uint32_t>& free) {
  const std::uint32_t end = load(socket_.completion.producer);
  std::uint32_t i = *socket_.completion.consumer;
  if (i == end) return;
  if (end - i > socket_.completion.size) i = end;  // somebody else has written there
  for (; i != end; ++i) {
    const std::uint32_t frame = frame_at(*xsk_ring_cons__comp_addr(&socket_.completion, i));
    if (frame >= marks_.size() || address(frame) + socket_.frame_size > socket_.size || free.size() >= marks_.size()) continue;
    marks_[frame].store(mark(Use::free, 0), std::memory_order_relaxed);
    free.push_back(frame);
  }
  store(socket_.completion.consumer, end);
}

void UmemFrames::mark_sent(std::uint32_t frame, std::uint32_t place) {
  marks_[frame].store(mark(Use::sent, place), std::memory_order_relaxed);
}

}  // namespace mtcp::stack::dpdk
