// Spare kernel sockets: what stands behind our descriptors. All are O_CLOEXEC and unconnected; those in stock
// are marked reserved in the FdTable. accept and close take and give without a system call in the steady
// state.
#pragma once

#include <cstddef>
#include <vector>

#include "intercept/descriptors/files.hh"
#include "intercept/kernel.hh"

namespace mtcp::intercept {

class DescriptorPool {
 public:
  DescriptorPool(Kernel& kernel, Files& files);
  // A descriptor of a fresh kernel socket of the family (AF_INET, AF_INET6), or -errno (EMFILE, ENFILE, ...). When the
  // stock is empty it makes up to `batch` at once. The caller marks the descriptor in Files.
  int take(int family, int batch = 1);
  // Takes back a descriptor whose kernel socket has not been bound or changed; closes it when there is enough stock.
  void give(int fd, int family);
  // The process has so many pools by now: each keeps its part of the stock, and descriptors whose numbers are not between another
  // one's, because what is kept of each (Files, FdTable) is written at every socket() and close(): threads that share
  // a cache line there slow each other down.
  void keep_apart(unsigned pools);
  // Another one gets back what this one has made, because connections go from this one's stack to that one's: gets half of it, if this has none.
  void take_stock(DescriptorPool& fuller, int family);
  // Closes the stock (in the child of a fork); marks included.
  void clear();
  // Takes `fd` out of the stock without closing it (dup2 is about to replace it). False if it is not in stock.
  bool release(int fd);

 private:
  int make(int family, int from);
  [[nodiscard]] int empty_block() const;
  Kernel& kernel_;
  Files& files_;
  std::vector<int>& stock(int family) { return family == AF_INET6 ? v6_ : v4_; }
  std::vector<int> v4_, v6_;
  unsigned pools_ = 1;
  std::size_t limit_;  // per family
};

}  // namespace mtcp::intercept
