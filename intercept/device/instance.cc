#include "intercept/device/instance.hh"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "intercept/descriptors/socket.hh"
#include "intercept/device/kernel_follower.hh"
#include "intercept/relay/relay.hh"
#include "intercept/sockets/urgent.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {
namespace {


using Base = stack::SocketBase;

// As sock_def_readable(): what has come may be urgent.
std::uint32_t events_of_edges(std::uint8_t edges) {
  std::uint32_t events = 0;
  if ((edges & Base::kReadEdge) != 0) events |= EPOLLIN | EPOLLRDNORM | EPOLLPRI;
  if ((edges & Base::kWriteEdge) != 0) events |= EPOLLOUT | EPOLLWRNORM;
  if ((edges & Base::kCloseEdge) != 0) events |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLHUP;
  return events;
}

std::uint32_t events_of_rare_edges(std::uint8_t edges, const Socket& s, Kernel* kernel) {
  if ((edges & Base::kUrgentEdge) != 0 && kernel != nullptr) signal_owner(*kernel, s);
  if ((edges & Base::kStampEdge) != 0) return EPOLLERR | ((edges & Base::kErrorEdge) != 0 ? EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLRDHUP : 0U);
  return (edges & Base::kErrorEdge) != 0 ? EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP : 0U;
}

}  // namespace

Instance::Instance(const Options& options, stack::OwnedAttachment device, std::unique_ptr<stack::PacketPool> own_pool,
                   const stack::Secrets& secrets, KernelFollower* follower)
    : device_name_(options.device.port),
      device_(std::move(device)),
      port_(device_.port.get()),
      slot_(device_.steering != nullptr ? device_.steering->share().stack : 0),
      own_pool_(std::move(own_pool)),
      follower_(follower),
      last_now_(now()) {
  worker_ = std::make_unique<stack::Worker>(options.stack, device_.get(), port_ ? port_->pool() : *own_pool_,
                                            stats_, secrets, last_now_, follower_);
}

Instance::~Instance() = default;

std::size_t Instance::turn(stack::Time now) {
  last_now_ = now = std::max(now, last_now_);
  moved_ = 0;
  turns.store(turns.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  worker_->flush(now);
  const std::uint64_t refused = stats_.get(stack::Counter::resets_sent);
  const std::size_t handled = worker_->poll(last_now_, intercept::now);
  moved_on_ = handled > stats_.get(stack::Counter::resets_sent) - refused;
  if (moved_on_) yielding_.progressed();
  useful_turns += handled != 0 ? 1 : 0;
  dispatch();
  return handled;
}

void Instance::hand_over_now() {
  const stack::Time t = std::max(intercept::now(), last_now_);
  worker_->flush(t);
  if (worker_->pending()) (void)turn(t);  // the loopback wire, or a device that was full
}

void Instance::settle_loopback_now() {
  last_now_ = std::max(intercept::now(), last_now_);
  (void)worker_->poll(last_now_, intercept::now);
  dispatch();
}

void Instance::dispatch() {
  while (stack::SocketBase* base = worker_->next_event()) {
    const std::uint8_t edges = std::exchange(base->edges, std::uint8_t{0});
    if (base->user == nullptr) continue;
    auto& s = *static_cast<Socket*>(base->user);
    std::uint32_t events = events_of_edges(edges);
    if (edges >= Base::kErrorEdge) [[unlikely]] events |= events_of_rare_edges(edges, s, kernel);
    notify(s, events);
  }
  if (relay != nullptr) relay->run_ready();
}

void Instance::log_notices() {
  if (port_ == nullptr) return;
  for (stack::Port::Notice n; !(n = port_->notice()).text.empty();) {
    if (n.address_conflict) stats_.add(stack::Counter::address_conflict);
    log(LogLevel::warning, "%s: %s", device_name_.c_str(), n.text.c_str());
  }
}

bool Instance::prepare_sleep(stack::Time now, stack::Time& latest) {
  now = std::max(now, last_now_);
  worker_->flush(now);
  if (worker_->must_poll()) return false;
  latest = worker_->next_deadline();
  if (latest <= now) return false;
  log_notices();
  mapped_files.drop_idle(now);
  if (port_) {
    // What waits for a link to come back has it soon.
    const stack::Duration longest = std::min(port_->max_sleep(), port_->link_up() ? longest_sleep_ : kLongestSleep);
    latest = std::min(latest, now + longest);
    if (!port_->arm()) {
      if (sleeping.load(std::memory_order_relaxed) == 0) port_->disarm();
      return false;
    }
  }
  const std::uint32_t others = sleeping.load(std::memory_order_relaxed);
  asleep_until_ = others == 0 ? latest : std::min(latest, asleep_until_);
  sleeping.store(others + 1, std::memory_order_relaxed);
  return true;
}

void Instance::finish_sleep(bool goes_on) {
  const std::uint32_t left = sleeping.load(std::memory_order_relaxed) - 1;
  sleeping.store(left, std::memory_order_relaxed);
  asleep_until_ = stack::kNever;
  longest_sleep_ = goes_on ? std::min<stack::Duration>(2 * longest_sleep_, kLongestIdle) : kLongestSleep;
  if (left > 0) return;
  if (port_) port_->disarm();
  if (follower_ != nullptr) follower_->look_soon();
  if (!goes_on) wake_standby();
}

void Instance::wake_standby() {
  if (standby != nullptr && standby_follows && sleeping.load(std::memory_order_relaxed) == 0) std::exchange(standby, nullptr)->wake();
}

std::span<const int> Instance::pollable() {
  const std::span<const int> of_port = port_ ? port_->pollable() : std::span<const int>{};
  if (follower_ == nullptr) return of_port;
  pollable_.assign(of_port.begin(), of_port.end());
  pollable_.push_back(follower_->descriptor());
  return pollable_;
}

}  // namespace mtcp::intercept
