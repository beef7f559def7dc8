// SO_TIMESTAMP, SO_TIMESTAMPNS and SO_TIMESTAMPING: when data came, told beside it, and when what was sent left and was acknowledged, told
// in the error queue. Times are the software's; a device has none of its own. Few sockets have any of it.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <span>

#include "intercept/sockets/control_messages.hh"
#include "stack/worker.hh"

namespace mtcp::intercept {

struct Socket;

struct Timestamping {
  std::uint32_t flags = 0;   // SO_TIMESTAMPING: SOF_TIMESTAMPING_*
  std::uint32_t first = 0;   // SOF_TIMESTAMPING_OPT_ID: the sequence number of the byte that is called 0
  bool receive = false;      // SO_TIMESTAMP or SO_TIMESTAMPNS ...
  bool nanoseconds = false;  // ... the latter
  bool wide = false;         // set by the options with _NEW: messages have their types
};

// The options, of SOL_SOCKET.
[[nodiscard]] bool is_timestamping(int name);
int set_timestamping(Socket& s, int name, const void* v, socklen_t n);
int get_timestamping(const Socket& s, int name, void* v, socklen_t* n);
// Each of them that is set, as setsockopt has it, for the kernel's socket.
struct TimestampingOption {
  int name;
  std::uint32_t value;
};
[[nodiscard]] std::span<const TimestampingOption> timestamping_options(const Socket& s, std::span<TimestampingOption, 2> room);

// The connection of `s` is there, or what is wanted has changed.
void ask_for_stamps(Socket& s);
// The messages that belong to data which came at `when`, of a socket with `t`.
void put_receive_times(ControlMessages& out, const Timestamping& t, stack::Time when);

// What the control messages of a send ask for. 0 or -errno.
struct SendControl {
  bool asks = false;        // for other times than the socket does
  std::uint32_t flags = 0;  // SOF_TIMESTAMPING_TX_*
};
int read_send_control(const Socket& s, const msghdr& m, SendControl& control);
// The next writes of `s`, until ask_for_stamps().
void ask_for_stamps(Socket& s, const SendControl& control);

[[nodiscard]] bool has_stamps(const Socket& s);
// recvmsg with MSG_ERRQUEUE: the oldest of its times. Bytes that were copied, or -EAGAIN. `m` may be null.
ssize_t receive_stamp(Socket& s, std::span<const iovec> v, msghdr* m);

}  // namespace mtcp::intercept
