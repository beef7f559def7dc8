#include "intercept/background/dump_server.hh"

#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/peer_user.hh"

namespace mtcp::intercept {
namespace {

// Of those who have connected, those included who have not asked yet.
constexpr std::size_t kMostReaders = 4 * stack::CaptureSet::kMost;

// What comes and goes here is in the clear: it is for those who could read it in the process's memory. That is root, and the
// process's own user unless the kernel keeps him from it, as with a worker that was root before.
bool may_capture(std::optional<uid_t> user) {
  if (!user.has_value()) return false;
  return *user == 0 || (*user == geteuid() && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
}

std::int64_t clock_offset() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec - now().time_since_epoch().count();
}

template <std::size_t N>
void put(std::array<char, N>& out, const std::string& text) {
  std::memcpy(out.data(), text.data(), std::min(text.size(), N - 1));
}

// Of both processes, and of nobody else; nobody can make it smaller. A fork's child does not get it.
struct SharedMemory {
  std::span<std::byte> bytes;
  int fd = -1;
};

SharedMemory make_memory(std::size_t size) {
  SharedMemory memory{.fd = memfd_create("mtcp-dump", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (memory.fd < 0) return memory;
  void* at = MAP_FAILED;
  // All of it now: a page that can't be had later would end the process.
  if (posix_fallocate(memory.fd, 0, static_cast<off_t>(size)) == 0 &&
      ::fcntl(memory.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory.fd, 0);
  if (at == MAP_FAILED) return memory;
  madvise(at, size, MADV_DONTFORK);
  memory.bytes = {static_cast<std::byte*>(at), size};
  return memory;
}

bool send_answer(Kernel& kernel, int fd, const DumpAnswer& answer, int memory) {
  iovec part{const_cast<DumpAnswer*>(&answer), sizeof answer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (memory >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &memory, sizeof memory);
  }
  return kernel.sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == ssize_t{sizeof answer};
}

}  // namespace

struct DumpServer::Request {
  DumpRequest head;
  std::optional<stack::PacketFilter> filter;
};

struct DumpServer::Reader {
  int fd = -1;
  int memory_fd = -1;
  std::span<std::byte> memory;
  std::optional<stack::Capture> capture;
};

DumpServer::DumpServer(Process& process) : process_(process) {}

DumpServer::~DumpServer() {
  while (!readers_.empty()) end(take(readers_.size() - 1));
}

bool DumpServer::is_client(const sockaddr_storage& name, socklen_t length) {
  const auto& address = reinterpret_cast<const sockaddr_un&>(name);
  constexpr std::size_t kStart = offsetof(sockaddr_un, sun_path) + 1;
  return length >= kStart + kDumpName.size() && address.sun_path[0] == '\0' &&
         std::memcmp(address.sun_path + 1, kDumpName.data(), kDumpName.size()) == 0;
}

DumpError DumpServer::read_request(int fd, Request& request) const {
  struct {
    DumpRequest head;
    std::array<stack::FilterInstruction, stack::PacketFilter::kMost> program;
  } in{};
  const ssize_t n = process_.kernel.read(fd, &in, sizeof in);
  if (n < ssize_t{sizeof in.head}) return DumpError::bad_request;
  request.head = in.head;
  const std::size_t count = in.head.instructions;
  if (in.head.magic != kDumpMagic || !std::has_single_bit(in.head.ring_size) || in.head.ring_size < stack::kLeastCaptureRing ||
      in.head.ring_size > stack::kMostCaptureRing || count > in.program.size() ||
      static_cast<std::size_t>(n) != sizeof in.head + count * sizeof in.program[0])
    return DumpError::bad_request;
  request.filter = stack::PacketFilter::check({in.program.data(), count});
  return request.filter.has_value() ? DumpError::none : DumpError::bad_filter;
}

DumpError DumpServer::begin(Request& request, Reader& reader) {
  const auto reads = [](const auto& r) { return r->capture.has_value(); };
  if (std::ranges::count_if(readers_, reads) == std::ptrdiff_t{stack::CaptureSet::kMost}) return DumpError::too_many;
  const SharedMemory memory = make_memory(sizeof(stack::CaptureHeader) + request.head.ring_size);
  reader.memory_fd = memory.fd;
  reader.memory = memory.bytes;
  if (memory.bytes.empty()) return DumpError::no_memory;
  reader.capture.emplace(memory.bytes, std::move(*request.filter), request.head.snap_length);
  const Guard guard(process_, Guard::Everything{});
  if (!process_.started() || !captures_.add(*reader.capture)) return DumpError::no_stack;
  process_.set_captures(&captures_);
  return DumpError::none;
}

DumpAnswer DumpServer::describe() const {
  DumpAnswer answer;
  answer.clock_offset = clock_offset();
  const Guard guard(process_, Guard::Everything{});
  const Program& program = process_.router.program();
  put(answer.program, program.names.empty() ? "?" : program.names.front());
  put(answer.device, process_.options.device.port.empty() ? "loopback" : process_.options.device.port);
  process_.for_each_stack([&](Instance& i) {
    answer.stack = i.slot();
  });
  return answer;
}

void DumpServer::admit(int fd) {
  auto reader = std::make_unique<Reader>();
  DumpError error = DumpError::none;
  if (!may_capture(user_of_peer(process_.kernel, fd)))
    error = DumpError::refused;
  else if (readers_.size() >= kMostReaders)
    error = DumpError::too_many;
  {
    const Guard guard(process_, Guard::Everything{});
    reader->fd = process_.keep_high(fd);
    if (error == DumpError::none) return readers_.push_back(std::move(reader));
  }
  DumpAnswer answer = describe();
  answer.error = error;
  (void)send_answer(process_.kernel, reader->fd, answer, -1);
  end(std::move(reader));
}

// False: it gets nothing.
bool DumpServer::answer(Reader& reader) {
  Request request;
  DumpAnswer answer = describe();
  answer.error = read_request(reader.fd, request);
  if (answer.error == DumpError::none) answer.error = begin(request, reader);
  answer.ring_size = request.head.ring_size;
  const bool told = send_answer(process_.kernel, reader.fd, answer, answer.error == DumpError::none ? reader.memory_fd : -1);
  if (reader.memory_fd >= 0) process_.kernel.close(std::exchange(reader.memory_fd, -1));
  return answer.error == DumpError::none && told;
}

std::unique_ptr<DumpServer::Reader> DumpServer::take(std::size_t at) {
  const Guard guard(process_, Guard::Everything{});
  std::unique_ptr<Reader> reader = std::move(readers_[at]);
  readers_.erase(readers_.begin() + static_cast<std::ptrdiff_t>(at));
  return reader;
}

void DumpServer::end(std::unique_ptr<Reader> reader) {
  {
    const Guard guard(process_, Guard::Everything{});
    if (reader->capture.has_value()) captures_.remove(*reader->capture);
    if (captures_.empty()) process_.set_captures(nullptr);
    process_.files.clear(reader->fd);
  }
  process_.kernel.close(reader->fd);
  if (!reader->memory.empty()) munmap(reader->memory.data(), reader->memory.size());
}

void DumpServer::add_descriptors(std::vector<pollfd>& fds) const {
  for (const auto& reader : readers_) fds.push_back({reader->fd, POLLIN, 0});
}

// A reader has nothing to say after its request: that it is gone is all that can come.
void DumpServer::look_at(std::span<const pollfd> fds) {
  for (const pollfd& p : fds) {
    if (p.revents == 0) continue;
    const auto at = std::ranges::find_if(readers_, [&p](const auto& reader) { return reader->fd == p.fd; });
    if (at == readers_.end()) continue;
    if (!(*at)->capture.has_value() && answer(**at)) continue;
    end(take(static_cast<std::size_t>(at - readers_.begin())));
  }
}

void DumpServer::abandon() {
  process_.captures = nullptr;
  for (const auto& reader : readers_) {
    process_.files.clear(reader->fd);
    process_.kernel.close(reader->fd);
  }
}

}  // namespace mtcp::intercept
