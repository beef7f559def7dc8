// The kernel, where it has a stack's interface and addresses as well: what is to be kept from it, and what is left to it.
#pragma once

#include <cstdint>

#include "stack/wire/address.hh"

namespace mtcp::stack {

// Used by one worker at a time, as its Port. Nothing here blocks.
class KernelShare {
 public:
  virtual ~KernelShare() = default;

  // The stack has the listener with this index in its slab: what comes for it is not the kernel's. `here` false: it has not any more.
  virtual void note_listener(std::uint32_t index, const Endpoint& local, bool v6_only, bool here) = 0;
  // The same for a flow, by the index of the connection.
  virtual void note_flow(std::uint32_t index, const FlowKey& key) = 0;
  virtual void forget_flow(std::uint32_t index) = 0;
  // Keeps the kernel from using the local port of `key`, which is about to be opened. False if it does use it. release_flow(): it
  // is not opened after all.
  virtual bool reserve_flow(const FlowKey& key) = 0;
  virtual void release_flow(const FlowKey& key) = 0;
  // What is sent to this address of ours comes here. Not if the kernel keeps what comes for it: then a connection from there
  // would never be answered.
  [[nodiscard]] virtual bool receives(const IpAddress& local) = 0;
  // A SYN of `remote` can't be answered over this device. The kernel may have another way to it: what it opens from now on is
  // left to it. forget_left(): the routes are not what they were.
  virtual void leave_opens_of(const IpAddress& remote) = 0;
  virtual void forget_left() = 0;
  // In the child of a fork, which will not use the port: closes what would keep something of its parent's from others.
  virtual void leave_to_parent() = 0;
};

}  // namespace mtcp::stack
