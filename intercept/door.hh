// A process that is forked after a device has been opened inherits it. One that was forked before finds this door: a Unix
// socket whose name only processes of the same program can compute. Whoever is the first to want the device takes the name,
// and opens it; the others are given what they need to have a part in it (stack::DeviceInvitation), also by each other.
#pragma once

#include <memory>
#include <string>

namespace mtcp::stack {
class Device;
}

namespace mtcp::intercept {

class Process;

// All with the process's lock held, except where it says otherwise.
class Door {
 public:
  explicit Door(Process& process) : process_(process) {}

  // Readable when serve() has something to do; -1: there is no door here. Without the lock.
  [[nodiscard]] int fd() const { return fd_; }
  // The calling process is about to open the device. False: another one has, or is about to.
  [[nodiscard]] bool take();
  // Nothing has come of it.
  void close();
  // The device of another process, or null: it is gone, or has none to share.
  [[nodiscard]] std::unique_ptr<stack::Device> knock();
  void serve();

 private:
  Process& process_;
  int fd_ = -1;
};

}  // namespace mtcp::intercept
