// A process that is forked after a device has been opened inherits it. Others find this door: those of the same program that were
// forked before, and where the device is an interface of the kernel, other programs of the same user. It is a Unix socket whose name only
// they can compute. Whoever is the first to want the device takes the name, and opens it; the others are given what they need to have a
// part in it (stack::DeviceInvitation), also by each other, whoever of them ends first.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "intercept/kernel.hh"
#include "stack/base/siphash.hh"
#include "stack/base/time.hh"

namespace mtcp::stack {
class Device;
}

namespace mtcp::intercept {

class Process;

// All with the process's lock held, except where it says otherwise. Nothing here waits.
class Door {
 public:
  explicit Door(Process& process) : process_(process) {}

  // Readable when serve() has something to do; -1: there is no door here. Without the lock.
  [[nodiscard]] int fd() const { return fd_; }
  // The calling process is about to open the device. False: another one has, or is about to.
  [[nodiscard]] bool take();
  // Nothing has come of it.
  void close();

  enum class Answer {
    nobody,   // the other process is gone, or has no device to share
    waiting,  // it has not answered so far (it opens the device, or is stopped): to be asked again
    device,
  };
  // Asks for the device of another process, or whether it has answered.
  [[nodiscard]] Answer knock(std::unique_ptr<stack::Device>& device);
  [[nodiscard]] bool waiting() const { return waiting_; }
  // Since when, if it is.
  [[nodiscard]] stack::Time asked() const { return asked_; }
  // Other programs find it, too: the device is an interface of the kernel.
  [[nodiscard]] bool is_for_others() const;
  // Nobody is known to be there: take() says.
  [[nodiscard]] bool may_take() const { return !waiting_ || refused_; }
  [[nodiscard]] int answer_fd() const { return answer_fd_; }  // the answer comes here; -1: look again later
  // Asks mtcp-open, if one has the interface (opener.hh): true if this process may have it. Waits a second for that at most.
  [[nodiscard]] bool ask_opener(std::unique_ptr<stack::Device>& device);
  // In the child of a fork: the answer is its parent's.
  void stop_knocking();
  void serve();

 private:
  struct Name;
  [[nodiscard]] Name name() const;
  // True if somebody else has the name: it is another one then.
  [[nodiscard]] bool leave_to_stranger(const Name& name) const;
  [[nodiscard]] bool may_enter(int fd) const;
  [[nodiscard]] int begin_to_knock();

  Process& process_;
  int fd_ = -1;
  int answer_fd_ = -1;
  bool waiting_ = false;  // for an answer
  stack::Time asked_{};
  bool refused_ = false;  // waiting: who has the name does not listen yet, or is gone
};

}  // namespace mtcp::intercept
