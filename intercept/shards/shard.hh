// One stack of this process with all that only its own calls touch: one lock covers it. A program with one thread has one shard;
// a second thread that listens gets a second (shards.hh).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "intercept/device/instance.hh"
#include "intercept/support/lock.hh"
#include "intercept/descriptors/pool.hh"
#include "intercept/descriptors/socket.hh"
#include "intercept/descriptors/socket_slab.hh"
#include "intercept/sockets/decisions.hh"
#include "intercept/waiting/watch.hh"

namespace mtcp::stack {
class KernelView;
}

namespace mtcp::intercept {

class KernelFollower;
class Process;
class ServiceThread;

struct alignas(64) Shard {
  Shard(Process& process, unsigned number);
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  [[nodiscard]] Socket* make_socket() {
    Socket* s = slab.make();
    s->shard = this;
    return s;
  }
  void free_socket(Socket& s) { slab.free(s); }
  // What the kernel says of the interface, as this shard last heard of it; null: nothing, or the addresses are the stack's own.
  [[nodiscard]] const stack::KernelView* kernel_view() const;

  Process& process;  // these two are read by all threads: not beside the lock
  const unsigned index;
  alignas(64) Lock lock;
  std::unique_ptr<KernelFollower> follower;  // null: nobody here has asked yet (Process::follow_kernel)
  std::uint32_t followed = 0;                // generation of its view that was looked at last
  std::unique_ptr<Instance> instance;        // null: not started
  std::unique_ptr<ServiceThread> service_thread;  // runs it while nobody else does
  DescriptorPool pool;
  SocketSlab slab;
  std::vector<std::unique_ptr<Sleeper>> sleepers;
  std::vector<Sleeper*> free_sleepers;
  Connects connects;
  std::vector<Socket*> attended;       // Socket::attention
  std::vector<Socket*> closed_in_use;  // without a descriptor, but held by a call that waits
  // Whether connections that were accepted on other stacks and brought here have lasted, so that it was worth it (dispatch.cc). With all
  // locks held.
  struct Brought {
    unsigned count = 0;         // since the last look
    std::uint64_t packets = 0;  // that had come by then
    bool too_short = false;     // it was not: what is accepted elsewhere stays there
  } brought;
  // How many threads have this as their own; theirs, too, so that one that ends later than the process's engine finds it.
  std::shared_ptr<std::atomic<unsigned>> threads = std::make_shared<std::atomic<unsigned>>(0);

  // Socket::serial of the next connection: no other shard gives the same, and what is given after a fork is greater than
  // everything that was given before (align_serials).
  [[nodiscard]] std::uint64_t next_serial() { return serials++ * kMost + index; }
  static constexpr unsigned kMost = 64;  // shards of a process
  std::uint64_t serials = 0;
};

}  // namespace mtcp::intercept
