// Where Sockets live: a free list, so that accept and close allocate nothing in the steady state.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "intercept/descriptors/socket.hh"

namespace mtcp::intercept {

class SocketSlab {
 public:
  [[nodiscard]] Socket* make() {
    if (free_ == nullptr) grow();
    Slot* slot = free_;
    free_ = slot->next;
    return new (slot->bytes) Socket;
  }
  void free(Socket& s) {
    s.~Socket();
    put(*reinterpret_cast<Slot*>(&s));
  }

 private:
  union Slot {
    Slot* next;  // of the free ones: so the list takes no memory of its own, which with many sockets would be a large piece
    alignas(Socket) std::byte bytes[sizeof(Socket)];
  };
  static constexpr std::size_t kChunk = 64;
  void put(Slot& slot) {
    slot.next = free_;
    free_ = &slot;
  }
  void grow() {
    chunks_.push_back(std::make_unique<Slot[]>(kChunk));
    for (std::size_t i = kChunk; i-- > 0;) put(chunks_.back()[i]);
  }
  std::vector<std::unique_ptr<Slot[]>> chunks_;
  Slot* free_ = nullptr;
};

}  // namespace mtcp::intercept
