// What the socket layer can be told. Plain values; conf fills them in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stack/options.hh"

namespace mtcp::intercept {

enum class Toggle : std::uint8_t { automatic, on, off };
enum class OnFailure : std::uint8_t { automatic, kernel, exit };

struct DeviceOptions {
  std::string port;          // DPDK device string or PCI address; empty: loopback only
  std::uint32_t queues = 0;  // 0: automatic
  Toggle hugepages = Toggle::automatic;
  std::uint32_t rx_ring = 1024, tx_ring = 1024;  // descriptors
  std::uint32_t packets = 0;                     // packet buffers per stack; 0: automatic
  std::vector<std::uint32_t> peer_users;         // memif: who may be at the other end, beside root and our own user
  // Each process that polls opens its own (memif, vhost-user); else opened once and inherited across fork.
  [[nodiscard]] bool is_private() const {
    return port.starts_with("net_memif") || port.starts_with("net_vhost");
  }
  // Opened once, for stacks of several processes and programs.
  [[nodiscard]] bool has_many_stacks() const { return !port.empty() && !is_private(); }
  // What a program does whose device can't be opened. Only where the kernel has its addresses as well can it do its work there.
  OnFailure on_failure = OnFailure::automatic;
  [[nodiscard]] bool falls_back() const { return is_shared_with_kernel() && on_failure != OnFailure::exit; }
  // The interface and its addresses are the kernel's as well.
  [[nodiscard]] bool is_shared_with_kernel() const {
    return is_automatic() || port.find(",share=kernel") != std::string::npos;
  }
  // The interface of the default route, shared (default_route.hh).
  [[nodiscard]] bool is_automatic() const { return port == "auto"; }
  // A private device of which there are `queues`, told apart by a number in the port string
  // (worker_number.hh).
  [[nodiscard]] bool is_numbered() const {
    return is_private() && port.find("{worker}") != std::string::npos;
  }
};

struct PollOptions {
  bool busy = false;                               // poll = "busy": never sleep
  stack::Duration spin = stack::microseconds(50);  // before sleeping
  stack::Duration kernel_interval =
      stack::microseconds(40);  // how often kernel descriptors are looked at while spinning
};

struct Rule {
  enum class Role : std::uint8_t { any, listen, connect };
  Role role = Role::any;
  bool has_address = false;
  stack::Prefix address;  // listen: the local one; connect: the remote one
  std::uint16_t port_first = 0, port_last = 65535;
  std::string program;  // name or path (program.hh) with fnmatch wildcards; empty: any
  bool to_stack = true;
};

enum class LogLevel : std::uint8_t { none, error, warning, info, debug };

struct Options {
  stack::Options stack;
  DeviceOptions device;
  PollOptions poll;
  std::vector<Rule> rules;  // first match wins
  bool service_thread = true;
  std::uint32_t stacks = 0;  // of a process, at most; 0: as many as CPUs that it may run on
  LogLevel log_level = LogLevel::warning;
  std::string log_file;  // empty: stderr
  std::string source;    // the file this came from, for messages
  // A program that joins the device listens before it has its stack, and the kernel does not answer for it
  // meanwhile: the other stacks leave unanswered what comes for its listeners, which they tell from other
  // programs' (holders.hh).
  [[nodiscard]] bool awaits_joining_listeners() const {
    return device.has_many_stacks() && !stack.interface.from_kernel;
  }
};

}  // namespace mtcp::intercept
