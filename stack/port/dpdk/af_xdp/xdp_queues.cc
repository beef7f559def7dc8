#include "stack/port/dpdk/af_xdp/xdp_queues.hh"

#include <rte_memory.h>
#include <sys/mman.h>

#include "stack/port/dpdk/eal/libc_calls.hh"
#include "stack/port/dpdk/shared_memory.hh"
#include "stack/steering/stack_set.hh"

namespace mtcp::stack::dpdk {

struct XdpQueues::Head {
  std::uint32_t queues, marks;  // marks: of each queue
};

struct XdpQueues::Queue {
  std::uint64_t offset, size;  // of its frames in the memory of the packets
  std::uint32_t frame_size, headroom, ifindex, number;
  std::uint32_t fill, completion, rx, tx;  // entries of its rings
  UmemFrames::Terms frames;
};

namespace {

constexpr std::size_t kHead = 8192;  // of the memory: Head, and a Queue for each
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::uint32_t kMostMarks = 1U << 20;

std::size_t bytes_of(std::uint32_t queues, std::size_t marks) { return kHead + queues * marks * sizeof(UmemFrames::Mark); }

// Where DPDK's memory lies in its file.
int packet_memory(const std::byte* area, std::uint64_t& offset) {
  rte_memseg* segment = rte_mem_virt2memseg(area, nullptr);
  std::size_t begin = 0;
  if (segment == nullptr || rte_memseg_get_fd_offset(segment, &begin) != 0) return -1;
  offset = begin + static_cast<std::uint64_t>(area - static_cast<const std::byte*>(segment->addr));
  return rte_memseg_get_fd(segment);
}

}  // namespace

XdpQueues::Queue& XdpQueues::queue(std::size_t i) const {
  static_assert(sizeof(Head) + kMaxStacks * sizeof(Queue) <= kHead);
  return reinterpret_cast<Queue*>(memory_.data() + sizeof(Head))[i];
}

std::span<UmemFrames::Mark> XdpQueues::marks(std::size_t i) const {
  const std::size_t n = head().marks;
  return {reinterpret_cast<UmemFrames::Mark*>(memory_.data() + kHead) + i * n, n};
}

std::unique_ptr<XdpQueues> XdpQueues::create(std::uint32_t queues, std::size_t marks_of_each) {
  if (marks_of_each > kMostMarks || queues > kMaxStacks) return nullptr;
  const std::size_t bytes = bytes_of(queues, marks_of_each);
  const int fd = create_shared_memory("mtcp-xdp-queues", bytes);
  const std::span<std::byte> memory = map_shared_memory(fd, 0, bytes);
  if (memory.empty()) {
    if (fd >= 0) mtcp_dpdk_close(fd);
    return nullptr;
  }
  std::unique_ptr<XdpQueues> made(new XdpQueues(fd, memory));
  made->made_ = true;
  made->head() = {queues, static_cast<std::uint32_t>(marks_of_each)};
  return made;
}

bool XdpQueues::add(Xsk& socket, MbufPool& pool, std::uint32_t send) {
  const std::size_t i = frames_.size();
  auto frames = i < head().queues ? UmemFrames::create(socket, pool, send, marks(i)) : nullptr;
  if (frames == nullptr) return false;
  Queue& q = queue(i);
  q = {.offset = 0,
       .size = socket.size,
       .frame_size = socket.frame_size,
       .headroom = socket.headroom,
       .ifindex = socket.ifindex,
       .number = socket.queue,
       .fill = socket.fill.size,
       .completion = socket.completion.size,
       .rx = socket.rx.size,
       .tx = socket.tx.size,
       .frames = frames->terms()};
  (void)packet_memory(socket.area, q.offset);
  frames_.push_back(std::move(frames));
  made_sockets_.push_back(&socket);
  return true;
}

std::vector<int> XdpQueues::descriptors() const {
  if (made_sockets_.empty()) return {};
  std::uint64_t offset = 0;
  std::vector<int> all{fd_, packet_memory(made_sockets_.front()->area, offset)};
  if (all.back() < 0) return {};
  for (const Xsk* x : made_sockets_) all.push_back(x->fd);
  return all;
}

std::unique_ptr<XdpQueues> XdpQueues::adopt(std::span<const int> descriptors) {
  const std::span<std::byte> begin = descriptors.size() < 3 ? std::span<std::byte>{} : map_shared_memory(descriptors[0], 0, kHead);
  if (begin.empty()) return nullptr;
  const Head head = *reinterpret_cast<const Head*>(begin.data());
  munmap(begin.data(), begin.size());
  if (head.queues != descriptors.size() - 2 || head.queues > kMaxStacks || head.marks > kMostMarks) return nullptr;
  const std::span<std::byte> memory = map_shared_memory(descriptors[0], 0, bytes_of(head.queues, head.marks));
  if (memory.empty()) return nullptr;
  std::unique_ptr<XdpQueues> adopted(new XdpQueues(descriptors[0], memory));
  adopted->sockets_.resize(head.queues);  // which frames_ refers to
  for (std::size_t i = 0; i < head.queues; ++i)
    if (const Queue q = adopted->queue(i); !adopted->adopt_queue(q, i, descriptors[1], descriptors[2 + i])) return nullptr;
  return adopted;
}

bool XdpQueues::adopt_queue(const Queue& q, std::size_t i, int memory, int socket) {
  constexpr std::uint32_t kMostEntries = 1U << 20;
  const std::uint64_t lead = q.offset % kHugePage;  // a mapping of huge pages begins with one
  if (q.frame_size == 0 || q.size / q.frame_size + 1 > head().marks || q.headroom >= q.frame_size) return false;
  for (const std::uint32_t entries : {q.fill, q.completion, q.rx, q.tx})
    if (entries == 0 || entries > kMostEntries || (entries & (entries - 1)) != 0) return false;
  const std::span<std::byte> area = map_shared_memory(memory, q.offset - lead, (lead + q.size + kHugePage - 1) / kHugePage * kHugePage);
  if (area.empty()) return false;
  areas_.push_back(area);
  (void)madvise(area.data(), area.size(), MADV_DONTDUMP);
  Xsk& x = sockets_[i];
  x.fd = socket;
  x.ifindex = q.ifindex;
  x.queue = q.number;
  x.area = area.data() + lead;
  x.size = q.size;
  x.frame_size = q.frame_size;
  x.headroom = q.headroom;
  if (!map_rings(x, {.fill = q.fill, .completion = q.completion, .rx = q.rx, .tx = q.tx})) return false;
  frames_.push_back(UmemFrames::adopt(x, marks(i), q.frames));
  return frames_.back() != nullptr;
}

XdpQueues::~XdpQueues() {
  frames_.clear();
  for (Xsk& x : sockets_) unmap_rings(x);
  for (const auto& area : areas_) munmap(area.data(), area.size());
  munmap(memory_.data(), memory_.size());
  if (made_) mtcp_dpdk_close(fd_);
}

}  // namespace mtcp::stack::dpdk
