// What a memif peer says is looked at before the driver hears it. The driver takes the peer's word for the size of the
// shared memory, for where the rings lie in it and for what its descriptors are; any of these could end this process. And
// it lets anybody connect who finds the socket's name.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stack/base/siphash.hh"

namespace mtcp::stack::dpdk {

class MemifGuard {
 public:
  // Users that may be at the other end, besides root and this process's own; and who proves that he has the key
  // (memif_proof.hh).
  void allow(std::vector<std::uint32_t> users, std::optional<SipKey> key) {
    allowed_ = std::move(users);
    key_ = key;
  }

  // A new control connection, that of a server or of a client: false if the peer's user may not have this wire, or has
  // too many connections that lead to nothing.
  bool admit(int fd, bool server);
  // A message on `fd`, with the descriptor that came along (or -1): false if the driver must not see it. Texts in it
  // end with a 0 afterwards.
  bool check(int fd, std::span<std::byte> message, int descriptor);
  // A message that is about to be sent: says who we are, and that a stack is at this end.
  void sign(std::span<std::byte> message) const;
  // The connection has been closed.
  void forget(int fd);

  // The connection has got so far that there are rings; whatever is said on it after that is its end.
  [[nodiscard]] bool is_connected(int fd) const;
  // The peer that was connected last has said that it is a stack, so its connections are in memory that ends with it.
  [[nodiscard]] bool peer_is_stack() const { return peer_is_stack_; }

  // Why the last peer was turned away; empty if none was.
  [[nodiscard]] const std::string& refusal() const { return refusal_; }

 private:
  // How far the two have got.
  enum class Stage : std::uint8_t { start, named, mapped, connected };  // mapped: the driver has the region
  struct Channel {
    int fd;
    bool server;  // we are
    ucred peer{};
    bool proven = true;  // false: a user who may not have this wire, unless the first message is a proof
    bool stack = false;  // as it says
    Stage stage = Stage::start;
    int memory = -1;                    // the region, once it may be mapped
    std::uint64_t region = 0;           // bytes of it
    std::uint16_t rings[2] = {0, 0};    // added, by direction
  };
  bool check_client(Channel& c, std::span<std::byte> message);
  bool check_server(Channel& c, std::span<std::byte> message, int descriptor);
  bool check_region(Channel& c, std::span<const std::byte> message, int descriptor);
  bool check_ring(Channel& c, std::span<const std::byte> message, int descriptor);
  bool refuse(const char* why);
  bool refuse_user(uid_t user, bool server);
  bool hear_name(Channel& c, std::span<const std::byte> name);
  void note_connected(Channel& c);

  std::vector<std::uint32_t> allowed_;
  std::optional<SipKey> key_;
  std::vector<Channel> channels_;
  std::string refusal_;
  bool peer_is_stack_ = false;
};

// The process has one, as it has one memif.
MemifGuard& memif_guard();

}  // namespace mtcp::stack::dpdk
