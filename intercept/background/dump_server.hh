// Gives copies of the stack's packets to mtcp-dump (dump_protocol.hh). Nothing here costs anything before somebody asks.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <span>
#include <vector>

#include "intercept/background/dump_protocol.hh"
#include "intercept/support/clock.hh"
#include "stack/capture/capture.hh"

namespace mtcp::intercept {

class Process;

// Belongs to the service thread, and is used by it alone. Takes all locks where a stack is concerned.
class DumpServer {
 public:
  explicit DumpServer(Process& process);
  ~DumpServer();
  DumpServer(const DumpServer&) = delete;
  DumpServer& operator=(const DumpServer&) = delete;

  // Whether the client that has connected from `name` is mtcp-dump.
  [[nodiscard]] static bool is_client(const sockaddr_storage& name, socklen_t length);
  // Takes `fd`. Whoever may not have packets is told so; others may ask when they like: nothing waits for them.
  void admit(int fd);
  // Descriptors that say when a reader asks or has gone; to be handed to look_at() afterwards.
  void add_descriptors(std::vector<pollfd>& fds) const;
  void look_at(std::span<const pollfd> fds);
  // In the child of a fork: the readers are the parent's.
  void abandon();

 private:
  struct Reader;
  struct Request;
  DumpError read_request(int fd, Request& request) const;
  bool answer(Reader& reader);
  DumpError begin(Request& request, Reader& reader);
  [[nodiscard]] DumpAnswer describe() const;
  std::unique_ptr<Reader> take(std::size_t at);
  void end(std::unique_ptr<Reader> reader);

  Process& process_;
  stack::CaptureSet captures_{now};
  std::vector<std::unique_ptr<Reader>> readers_;  // changed with all locks held, so that a fork finds it whole
};

}  // namespace mtcp::intercept
