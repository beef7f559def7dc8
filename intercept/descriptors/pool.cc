#include "intercept/descriptors/pool.hh"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include <algorithm>
#include <mutex>

#include "intercept/support/lock.hh"

namespace mtcp::intercept {
namespace {

constexpr int kBlock = 64;
// One pool at a time looks for a block and fills it. The innermost lock, so nobody has it in a fork.
Lock making_block;

// How many spare sockets to keep per family: enough for bursts, little of what the application may open.
std::size_t stock_limit() {
  constexpr std::size_t kMost = 8192, kShare = 8;
  rlimit r{};
  if (::getrlimit(RLIMIT_NOFILE, &r) != 0) return kMost / kShare;
  return std::min<std::size_t>(kMost, r.rlim_cur / kShare);
}

}  // namespace

DescriptorPool::DescriptorPool(Kernel& kernel, Files& files)
    : kernel_(kernel), files_(files), limit_(stock_limit()) {}

void DescriptorPool::keep_apart(unsigned pools) {
  pools_ = pools;
  limit_ = stock_limit() / pools_;
}

// A kernel socket, with the lowest number that is free from `from` on, if there is one; -1: with the lowest of all.
int DescriptorPool::make(int family, int from) {
  const int fd = kernel_.socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0 || from < 0) return fd;
  const int moved = kernel_.fcntl(fd, F_DUPFD_CLOEXEC, from);
  const bool fits = moved >= 0 && moved < files_.size();
  if (moved >= 0) (void)kernel_.close(fits ? fd : moved);
  return fits ? moved : fd;
}

// Where as many numbers as share a cache line of FdTable are nobody's of us. Not the lowest, where the program's own files are.
int DescriptorPool::empty_block() const {
  for (int from = kBlock; from + kBlock <= files_.size(); from += kBlock) {
    int fd = from;
    while (fd < from + kBlock && files_.kind(fd) == FdKind::kernel) ++fd;
    if (fd == from + kBlock) return from;
  }
  return -1;
}

int DescriptorPool::take(int family, int batch) {
  auto& spare = stock(family);
  if (spare.empty()) {
    std::unique_lock block(making_block, std::defer_lock);
    if (pools_ > 1) block.lock();
    const int from = pools_ > 1 ? empty_block() : -1;
    if (pools_ > 1) batch = static_cast<int>(std::clamp<std::size_t>(limit_, 1, kBlock));
    int first = -1;
    for (int i = 0; i < batch; ++i) {
      const int fd = make(family, from);
      if (fd < 0) {
        if (first < 0) return fd;
        break;
      }
      if (fd >= files_.size()) {  // the limit has been raised above what it was when the table was made
        (void)kernel_.close(fd);
        if (first < 0) return -EMFILE;
        break;
      }
      if (first < 0) {
        first = fd;
      } else {
        files_.put_reserved(fd);
        spare.push_back(fd);
      }
    }
    std::reverse(spare.begin(), spare.end());  // the lowest number goes first, as the kernel would have it
    return first;
  }
  const int fd = spare.back();
  spare.pop_back();
  return fd;
}

void DescriptorPool::give(int fd, int family) {
  auto& spare = stock(family);
  // The standard streams' numbers are closed for real: programs close them to open something else in their
  // place.
  if (fd > 2 && spare.size() >= limit_) limit_ = stock_limit() / pools_;
  if (fd <= 2 || spare.size() >= limit_) {
    files_.clear(fd);
    (void)kernel_.close(fd);
    return;
  }
  files_.put_reserved(fd);
  spare.push_back(fd);
}

void DescriptorPool::take_stock(DescriptorPool& fuller, int family) {
  auto& mine = stock(family);
  auto& theirs = fuller.stock(family);
  if (!mine.empty() || theirs.size() < 2) return;
  const auto half = theirs.begin() + static_cast<std::ptrdiff_t>(theirs.size() / 2);
  mine.assign(theirs.begin(), half);
  theirs.erase(theirs.begin(), half);
}

void DescriptorPool::clear() {
  for (auto* spare : {&v4_, &v6_}) {
    for (const int fd : *spare) {
      files_.clear(fd);
      (void)kernel_.close(fd);
    }
    spare->clear();
  }
}

bool DescriptorPool::release(int fd) { return std::erase(v4_, fd) + std::erase(v6_, fd) != 0; }

}  // namespace mtcp::intercept
