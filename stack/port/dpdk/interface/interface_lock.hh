// An interface of the kernel belongs to one program: two that opened it would each answer for what is the other's.
#pragma once

#include <string>

namespace mtcp::stack::dpdk {

// A packet socket in a fanout group that has room for one. Only who may open the interface at all can make one, so nobody
// else can keep us out; its reach is the network namespace, as the interface's is, and it leaves nothing behind. Children of
// a fork hold it too, as they hold the interface.
class InterfaceLock {
 public:
  InterfaceLock() = default;
  ~InterfaceLock() { release(); }
  InterfaceLock(const InterfaceLock&) = delete;
  InterfaceLock& operator=(const InterfaceLock&) = delete;

  // False and `message` (who has it) if another program still has the interface after a second: so long a server that
  // is stopped and started again may take to go. The interface is there and up.
  bool take(const std::string& interface, std::string& message);
  // Why take() has failed: another program has it.
  [[nodiscard]] bool in_use() const { return in_use_; }
  [[nodiscard]] int descriptor() const { return fd_; }  // open in all who share it: -1: none
  void release();

 private:
  bool in_use_ = false;
  int fd_ = -1;
};

}  // namespace mtcp::stack::dpdk
