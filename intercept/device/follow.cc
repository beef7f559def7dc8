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

const stack::KernelView* Shard::kernel_view() const { return follower != nullptr ? &follower->view() : nullptr; }

bool Process::open_follower(Shard& shard) {
  if (options.device.is_automatic()) return false;  // no interface was found
  const int fd = kernel.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return false;
  const int high = keep_high(fd);
  std::string message;
  shard.follower = KernelFollower::open(kernel, high, stack::value_of(options.device.port, "iface"), message);
  if (shard.follower == nullptr) {
    files.clear(high);
    kernel.close(high);
    if (message != follow_error) log(LogLevel::error, "address = \"kernel\": %s", message.c_str());
    follow_error = message;
    return false;
  }
  if (!follow_error.empty()) follow_error.clear();
  return true;
}

void Process::follow_kernel(Shard& shard) {
  if (!options.stack.interface.from_kernel || on_kernel) return;
  if (shard.follower == nullptr && !open_follower(shard)) return;
  shard.follower->update_now(now());
  const stack::KernelView& view = shard.follower->view();
  if (view.generation == shard.followed) return;
  shard.followed = view.generation;
  if (view.truncated && !told_of_routes) {
    // Which way an answer goes is not known then.
    on_kernel = device == nullptr && options.device.falls_back();
    log(LogLevel::warning, on_kernel ? "there are more routes than the stack keeps (65536). This program runs on the kernel (on_failure)"
                                     : "there are more routes than the stack keeps (65536): new connections are the kernel's");
  }
  if (told_of_routes != view.truncated) told_of_routes = view.truncated;
  if (shard.instance != nullptr) shard.instance->worker().follow_kernel(now());
}

void Process::miss_interface(const stack::IpAddress& wanted) {
  if (!options.device.is_automatic() || on_kernel || wanted.is_any() || wanted.is_loopback()) return;
  (void)open_device_now();
}

void Process::forget_followers() {
  shards.for_each([this](Shard& s) {
    if (s.follower == nullptr) return;
    files.clear(s.follower->descriptor());
    kernel.close(s.follower->descriptor());
    s.follower.reset();
    s.followed = 0;
  });
}

}  // namespace mtcp::intercept
