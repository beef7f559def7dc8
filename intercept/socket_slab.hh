// Where Sockets live: a free list, so that accept and close allocate nothing in the steady state.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "intercept/socket.hh"

namespace mtcp::intercept {

class SocketSlab {
 public:
  [[nodiscard]] Socket* make() {
    if (free_.empty()) grow();
    void* slot = free_.back();
    free_.pop_back();
    return new (slot) Socket;
  }
  void free(Socket& s) {
    s.~Socket();
    free_.push_back(&s);
  }

 private:
  struct alignas(Socket) Slot {
    std::byte bytes[sizeof(Socket)];
  };
  static constexpr std::size_t kChunk = 64;
  void grow() {
    chunks_.push_back(std::make_unique<Slot[]>(kChunk));
    free_.reserve(chunks_.size() * kChunk);  // free() must not allocate
    for (std::size_t i = kChunk; i-- > 0;) free_.push_back(&chunks_.back()[i]);
  }
  std::vector<std::unique_ptr<Slot[]>> chunks_;
  std::vector<void*> free_;
};

}  // namespace mtcp::intercept
