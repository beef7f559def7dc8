// A card belongs to one program: uio lets any number open it, and the second would reset it under the first.
#pragma once

#include <string>
#include <string_view>

namespace mtcp::stack::dpdk {

// "0000:03:00.0" for "03:00.0" and for "0000:03:00.0,arguments".
std::string full_pci_address(std::string_view port);

// A lock file in /run, so that it holds across network namespaces. Children of a fork hold it too, as they
// hold the card.
class CardLock {
 public:
  explicit CardLock(std::string directory = "/run") : directory_(std::move(directory)) {}
  ~CardLock() { release(); }
  CardLock(const CardLock&) = delete;
  CardLock& operator=(const CardLock&) = delete;

  // False and `message` if another program has the card. True without a lock if the file cannot be made: who
  // may not write there uses vfio, which the kernel gives to one program only.
  bool take(std::string_view port, std::string& message);
  [[nodiscard]] int descriptor() const { return fd_; }  // open in all who share it: -1: none
  void release();

 private:
  std::string directory_;
  int fd_ = -1;
};

}  // namespace mtcp::stack::dpdk
