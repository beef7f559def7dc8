// What a stack is attached to. All outlive it.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <utility>

#include "stack/port/kernel_share.hh"
#include "stack/port/port.hh"
#include "stack/port/steering.hh"

namespace mtcp::stack {

struct Attachment {
  Attachment(std::nullptr_t) {}
  Attachment(Port* p, Steering* s, KernelShare* k = nullptr) : port(p), steering(s), kernel_share(k) {}
  // A port that is all of it, as its type says.
  template <std::derived_from<Port> P>
  Attachment(P* p) : port(p) {
    if constexpr (std::derived_from<P, Steering>) steering = p;
  }
  Port* port = nullptr;                 // null: only the loopback wire
  Steering* steering = nullptr;         // null: no other stack is on the device, or will be
  KernelShare* kernel_share = nullptr;  // null: its interface and addresses are the stacks' alone
};

// The same with the port, which the others are parts of.
struct OwnedAttachment {
  std::unique_ptr<Port> port;
  Steering* steering = nullptr;
  KernelShare* kernel_share = nullptr;
  [[nodiscard]] Attachment get() const { return {port.get(), steering, kernel_share}; }
};

}  // namespace mtcp::stack
