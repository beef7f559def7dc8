// Where the stack's addresses are the kernel's: what it says of them, kept up to date for the decisions of this process.
#include <errno.h>
#include <linux/netlink.h>

#include "intercept/device/instance.hh"
#include "intercept/device/kernel_follower.hh"
#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/log.hh"
#include "stack/port/device.hh"

namespace mtcp::intercept {

bool Process::open_follower() {
  if (options.device.is_automatic()) return false;  // no interface was found
  const int fd = kernel.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return false;
  const int high = keep_high(fd);
  std::string message;
  follower = KernelFollower::open(kernel, high, stack::value_of(options.device.port, "iface"), message);
  if (follower == nullptr) {
    files.clear(high);
    kernel.close(high);
    if (message != follow_error) log(LogLevel::error, "address = \"kernel\": %s", message.c_str());
    follow_error = message;
    return false;
  }
  follow_error.clear();
  router.follow(&follower->view());
  return true;
}

void Process::follow_kernel() {
  auto& interface = options.stack.interface;
  if (!interface.from_kernel || on_kernel) return;
  if (follower == nullptr && !open_follower()) return;
  follower->update_now(now());
  const stack::KernelView& view = follower->view();
  if (view.generation == followed) return;
  if (view.truncated && !told_of_routes) {
    // Which way an answer goes is not known then.
    on_kernel = device == nullptr && options.device.falls_back();
    log(LogLevel::warning, on_kernel ? "there are more routes than the stack keeps (65536). This program runs on the kernel (on_failure)"
                                     : "there are more routes than the stack keeps (65536): new connections are the kernel's");
  }
  told_of_routes = view.truncated;
  followed = view.generation;
  interface.addresses.clear();
  for (const stack::KernelAddress& a : view.own) interface.addresses.push_back({a.address, a.prefix_length});
  for_each_stack([](Instance& i) { i.worker().follow_kernel(now()); });
}

void Process::forget_follower() {
  if (follower == nullptr) return;
  files.clear(follower->descriptor());
  kernel.close(follower->descriptor());
  router.follow(nullptr);
  follower.reset();
  followed = 0;
}

}  // namespace mtcp::intercept
