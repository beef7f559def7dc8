// What scripts/mtcp-stat reads: an abstract unix socket "mtcp-stat-<pid>-<random>" in the process's network namespace, found in
// /proc/net/unix by the process that listens on it (SO_PEERCRED), because anybody can have such a name.
// Whoever connects with the same user id, or as root, gets one text and the connection is closed:
//   mtcp-stat 1
//   process pid=N program=NAME device=STRING
//   stack connections=N time_waits=N packets_free=N packets=N sleeping=N turns=N
//   memory used=BYTES level=low|pressure|high low=BYTES pressure=BYTES high=BYTES ...  (of packet buffers: [tcp] mem)
//   share stack=N queues=N packets_free=N ...  (if other stacks may use the device, too: Steering::Share)
//   counter NAME VALUE SEVERITY TEXT          (one line each)
//   connection STATE LOCAL REMOTE rx_queued=N tx_queued=N cwnd=N ... (one line each)
//   end
// Who connects from a name that says so gets packets instead (dump_protocol.hh).
#pragma once

namespace mtcp::intercept {

class DumpServer;
class Process;

// The listening socket, or -errno: then there are no statistics.
int open_stat_socket(Process& process);
// Answers one client. Takes the process's lock for as long as it takes to copy the numbers. One that wants packets is `dump`'s.
void serve_stat(Process& process, int listener, DumpServer& dump);

}  // namespace mtcp::intercept
