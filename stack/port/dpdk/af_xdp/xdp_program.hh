// The program on an interface that gives every frame, or those that are the stack's, to the AF_XDP socket of its queue; or, above
// XDP, those that are the stack's to packet sockets.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace mtcp::stack::dpdk {

class SharedPorts;
struct Sharing;
class Descriptor;

// The program for an interface that is shared with the kernel (share/program.bpf.c): its descriptor, or -1 and errno. Segments of
// the ports in there go to the socket in the map of their queue.
long load_for_some(const Descriptor& sockets, const SharedPorts& ports);

// The same as a classifier of tc, which gives them the type that packet sockets are bound to.
long load_classifier_for_some(const SharedPorts& ports);
// Whether this process may attach such a classifier to an interface, by a link. False: errno says why not.
bool may_classify();
bool may_classify(const std::string& interface, std::string& message);

// Whether this process may do so: false and `message` if the kernel has no AF_XDP, or refuses it. Where the interface of `port`
// would be shared without XDP, it names the capabilities that this takes.
bool may_use_xdp(const std::string& port, std::string& message);

// Attached by a link (kernel 5.9), so that it is on the interface as long as a process has the link's
// descriptor: those that this one forks included, and not a moment longer however they end. No file, no
// mounted bpffs, nothing pinned.
class XdpProgram {
 public:
  XdpProgram() = default;
  ~XdpProgram() { detach(); }
  XdpProgram(const XdpProgram&) = delete;
  XdpProgram& operator=(const XdpProgram&) = delete;

  // For the sockets that there are (xsks()), all on this interface. False and `message` if it cannot be
  // attached. What a program that died has left there is taken off: the sockets have been bound, so that
  // nobody uses it any more.
  // `how`: in the driver, or above it (kernel interfaces without hardware), or as the kernel sees fit. `shared`: the program that leaves to the
  // kernel what is not in there; null: the one that takes everything.
  bool attach(const std::string& interface, const Sharing& how, SharedPorts* shared, std::string& message);
  // The classifier, for what `shared` says.
  bool attach_classifier(const std::string& interface, const SharedPorts& shared, std::string& message);
  // For packet sockets, which get copies only: keeps the kernel from what comes for `addresses` (IPv4, host order), which it would forward
  // or redirect. False where it can't be had.
  bool attach_guard(const std::string& interface, std::span<const std::uint32_t> addresses);
  // attach() has failed because the driver has no XDP, or none for what the interface is set to (MTU, queues, offloads).
  [[nodiscard]] bool refused_by_driver() const { return refused_; }
  // The link's; -1: none.
  [[nodiscard]] int descriptor() const { return link_; }
  // Other processes that have it keep it.
  void detach();

 private:
  int link_ = -1;
  bool refused_ = false;
};

}  // namespace mtcp::stack::dpdk
