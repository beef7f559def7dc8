// A stack for this process, at the last moment: the device is opened, a queue claimed, the listeners put on
// it.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "intercept/descriptors/holders.hh"
#include "intercept/device/device_config.hh"
#include "intercept/engine.hh"
#include "intercept/lifetime/lasting.hh"
#include "intercept/lifetime/program_key.hh"
#include "intercept/process.hh"
#include "intercept/support/clock.hh"
#include "intercept/support/cpus.hh"
#include "intercept/support/log.hh"
#include "intercept/support/memory.hh"
#include "intercept/background/service_thread.hh"
#include "stack/packet/heap_pool.hh"

namespace mtcp::intercept {
namespace {

// Internal descriptors go this far below the limit, away from the application's.
constexpr int kReservedRange = 64;
constexpr stack::Duration kRetryInterval = stack::milliseconds(10);
constexpr stack::Duration kAnswerInterval = stack::milliseconds(1);
// Who is about to share the device opens it, which takes half a second at most, and answers then.
constexpr stack::Duration kOwnerPatience = stack::seconds(10);
constexpr stack::Duration kStrangersPatience = stack::seconds(3);  // for another program
constexpr std::uint32_t kDefaultPackets = 65536, kUsualPacket = 2048;  // bytes: as many take 150 MB with what belongs to them
constexpr std::size_t kStackMemory = std::size_t{8} << 20;  // bytes that a stack takes at its start, packets aside

std::uint32_t packets_of(const Options& o) {
  if (o.device.packets != 0) return o.device.packets;
  const std::uint32_t most = kDefaultPackets / 1024 * kUsualPacket / std::max(kUsualPacket, o.stack.interface.mtu) * 1024;
  return std::max(most, 2 * (o.device.rx_ring + o.device.tx_ring));
}

int hugepages_of(Toggle t) { return t == Toggle::automatic ? -1 : t == Toggle::on ? 1 : 0; }

std::vector<std::uint32_t> own_addresses(const Options& o) {
  std::vector<std::uint32_t> list;
  if (o.stack.interface.from_kernel) return list;  // the kernel's are meant
  for (const auto& a : o.stack.interface.addresses)
    if (a.address.is_v4()) list.push_back(a.address.as_v4());
  return list;
}

// A signal waits, blocked, that may ask this process to do something else.
bool asked_to_end() {
  sigset_t pending;
  if (sigpending(&pending) != 0) return false;
  for (const int number : {SIGTERM, SIGQUIT, SIGINT, SIGHUP}) {
    if (sigismember(&pending, number) == 1) return true;
  }
  return false;
}

}  // namespace

int Process::keep_high(int fd) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  // Higher than programs expect theirs, which use select(2) or small arrays; not much higher, because the kernel copies a process's
  // table up to its highest number at each fork. Where these are taken the next ones are.
  constexpr rlim_t kTop = 2048;
  const int top = static_cast<int>(std::min({limit.rlim_cur, static_cast<rlim_t>(files.size()), kTop}));
  // A server with many children has many: then the range grows downwards. A low number would be in the way of a dup2.
  int high = -EMFILE;
  for (int range = kReservedRange; high < 0 && range <= top / 2 && top - range > fd; range *= 2) {
    high = kernel.fcntl(fd, F_DUPFD_CLOEXEC, top - range);
    if (high < files.size()) continue;
    kernel.close(high);
    high = -EMFILE;
  }
  if (high >= 0) kernel.close(fd);
  const int result = high >= 0 ? high : fd;
  files.put_reserved(result);
  return result;
}

int Process::internal_eventfd() {
  const int fd = kernel.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? fd : keep_high(fd);
}

void Process::forget_waits() {
  // The eventfds are the parent's: its threads would wake up. The sleepers stay, deaf, because waiters of
  // threads that do not exist here may still point to them.
  shards.for_each([this](Shard& shard) {
    for (auto& s : shard.sleepers) {
      s->woken.store(true, std::memory_order_relaxed);
      if (s->wake_fd >= 0) {
        files.clear(s->wake_fd);
        kernel.close(s->wake_fd);
        s->wake_fd = -1;
      }
      (void)s.release();
    }
    shard.sleepers.clear();
    shard.free_sleepers.clear();
  });
}

// Makes a numbered device's configuration that of this process: its number, and the one queue that it polls.
int Process::number_device(stack::DeviceConfig& config, std::string& message) {
  if (!worker_number.held()) {
    const int e = worker_number.claim(kernel, config.port, config.queues);
    if (e != 0 && e != -EBUSY) message = std::string("no number for this process: ") + strerror(-e);
    if (e != 0) return e;
    worker_number.fd = keep_high(worker_number.fd);
  }
  config.port = with_worker_number(config.port, worker_number.number);
  config.queues = 1;
  return 0;
}

void Process::release_worker_number() {
  if (!worker_number.held()) return;
  files.clear(worker_number.fd);
  kernel.close(worker_number.fd);
  worker_number = {};
}

stack::DeviceConfig device_config(const Options& options) {
  return {.port = options.device.port,
          .queues = options.device.queues,
          .cpus = program_cpus(),
          .rx_ring = options.device.rx_ring,
          .tx_ring = options.device.tx_ring,
          .mtu = options.stack.interface.mtu,
          .packets = packets_of(options),
          .hugepages = hugepages_of(options.device.hugepages),
          .peer_users = options.device.peer_users,
          .addresses = own_addresses(options),
          .program = program_number()};
}

// Another process may have the device, or be about to: then this one has a part in it (0), or will have when that one answers
// (-EBUSY). -ENOENT: it is ours to open.
int Process::share_device() {
  constexpr int kTries = 3;  // who had the name may be gone when it is asked
  if (options.device.is_private() || open_as_guest == nullptr || !(has_relatives() || door.is_for_others())) return -ENOENT;
  if (!door.waiting() && door.ask_opener(device)) return 0;
  for (int i = 0; i < kTries; ++i) {
    if (door.may_take() && door.take()) break;
    const Door::Answer answer = door.knock(device);
    if (answer == Door::Answer::device) return 0;
    if (answer == Door::Answer::nobody) continue;
    if (has_relatives() || now() < door.asked() + kStrangersPatience) return -EBUSY;
    door.stop_knocking();  // another program, which is stopped
    break;
  }
  return -ENOENT;
}

// Both ends of a memif find the same if one user has started their programs, whoever they run as by now.
std::optional<stack::SipKey> Process::peer_key() {
  if (!options.device.is_private() || load_secrets() != 0 || lasting->port_counters == nullptr) return std::nullopt;
  constexpr std::uint64_t kPurpose = 0x6d656d6966;  // "memif"
  const auto& secret = lasting->lasting;
  const auto part = [&](std::size_t i) { return stack::siphash_words<2, 4>({secret[i], secret[i + 1]}, kPurpose); };
  return stack::SipKey{part(0), part(2)};
}

int Process::open_device_now() {
  if (device != nullptr) return 0;
  if (on_kernel) return -ENETDOWN;
  stack::DeviceConfig config = device_config(options);
  config.misconfigured = &misconfigured;
  config.in_use = &in_use;
  config.peer_key = peer_key();
  config.program = program;
  config.cpus = cpus;
  in_use = misconfigured = false;
  std::string message;
  const int numbered = options.device.is_numbered() ? number_device(config, message) : 0;
  if (numbered == -EBUSY) return numbered;
  const int shared = numbered == 0 ? share_device() : numbered;
  if (shared == -EBUSY) return shared;
  if (shared == -ENOENT) device = open_device(config, message);
  if (device != nullptr) {
    // A memif's come and go; those of a device that is shared stay, here and in all children.
    for (const int fd : options.device.is_private() ? std::span<const int>{} : device->descriptors()) {
      if (fd < files.size()) files.put_reserved(fd);
    }
    device->tell_descriptors([this](int fd, bool opened) {
      if (fd < files.size()) opened ? files.put_reserved(fd) : files.clear(fd);
    });
    if (const std::string how = device->summary(); !how.empty()) log(LogLevel::info, "%s", how.c_str());
    return 0;
  }
  return lack_device(config.port, message);
}

int Process::lack_device(const std::string& port, const std::string& message) {
  on_kernel = options.device.falls_back() && !misconfigured && !(successor && in_use);
  if (on_kernel)
    log(LogLevel::warning, "%s: %s. This program runs on the kernel (on_failure)", port.c_str(), message.c_str());
  else if (message != start_error)
    log(LogLevel::error, "%s: %s", port.c_str(), message.c_str());
  start_error = message;
  door.close();
  release_worker_number();
  return -ENETDOWN;
}

void Process::exit_without_device() const { ::_exit(misconfigured ? kExitConfiguration : kExitUnavailable); }

// Once, while this is still the user who started the program: its children have it from here.
int Process::load_secrets() {
  if (lasting) return 0;
  stack::Secrets loaded;
  bool usable = false;
  if (!load_lasting(kernel, keeping_places(::geteuid()), loaded, usable))
    log(LogLevel::info, "the secret of sequence numbers can't be kept for the next start of this program");
  if (!usable) return -EAGAIN;
  lasting = loaded;
  if (loaded.port_counters != nullptr && door.is_for_others()) door_nonces = load_door_nonces(kernel, keeping_places(::geteuid()));
  return 0;
}

void Process::open_device_early(Guard& guard, bool will_listen) {
  if (options.device.port.empty() || device != nullptr || on_kernel || (!will_listen && listeners.empty())) return;
  (void)load_secrets();
  if (options.device.is_private()) return;
  const std::uint32_t signals = *services.signal_count();
  const stack::Time patience = now() + kOwnerPatience;
  bool told = false;
  for (int error = open_device_now(); error != 0; error = open_device_now()) {
    // The program that has left its listeners to this one (nginx changes its binary so) serves on until it leaves. A signal,
    // which may tell this one to leave instead, ends the waiting; what is forked then has no device.
    if (on_kernel) return;
    const bool left = error != -EBUSY && successor && in_use;
    if (error != -EBUSY && !left) exit_without_device();
    if (left && (*services.signal_count() != signals || asked_to_end())) return;
    if (error == -EBUSY && now() >= patience) return;
    if (left && !told) log(LogLevel::warning, "%s: waiting until the program before this one has left it", options.device.port.c_str());
    told = told || left;
    await_device(guard);
  }
  if (told) log(LogLevel::warning, "%s is free", options.device.port.c_str());
}

// Without the lock: who has the device may be stopped, and other threads have their own work.
void Process::await_device(Guard& guard) {
  pollfd answer{door.answer_fd(), POLLIN, 0};
  constexpr timespec pause = to_timespec(kRetryInterval);
  guard.unlock();
  (void)kernel.ppoll(&answer, 1, &pause, nullptr);
  guard.lock();
}

int Process::await_stack(Guard& guard, Shard& shard) {
  if (shard.instance != nullptr) return 0;
  const bool narrow = !guard.all();
  guard.widen();
  const stack::Time patience = now() + kOwnerPatience;
  int error = ensure_started(shard);
  for (; error == -EBUSY && door.waiting() && now() < patience; error = ensure_started(shard)) {
    await_device(guard);
    next_attempt = {};
  }
  if (narrow) guard.narrow(shard);
  return error;
}

int Process::start_now(Guard& guard) {
  Shard& shard = guard.shard();
  if (guard.all()) {
    int error = 0;
    shards.for_each([&](Shard& s) { error = error != 0 ? error : ensure_started(s); });
    return error;
  }
  guard.widen();
  const int error = ensure_started(shard);
  guard.narrow(shard);
  return error;
}

// An old worker that is on its way out has it: its slot will be free. Or another process is about to share the device.
int Process::wait_for_slot(stack::Time t) {
  if (door.waiting()) {
    if (asked_since == stack::Time{}) asked_since = t;
    const bool late = t - asked_since > stack::seconds(1);
    if (late && start_error.empty())
      log(LogLevel::warning, "%s: another process has it, and does not answer: waiting", options.device.port.c_str());
    if (late) start_error = "busy";
    next_attempt = t + (late ? kRetryInterval : kAnswerInterval);
    return -EBUSY;
  }
  if (start_error.empty())
    log(LogLevel::warning, started() ? "no slot on %s is free for another stack of this process: its threads share those that it has"
                           : options.device.falls_back() ? "every slot on %s is taken: until one is free, this process's connections are the kernel's"
                                                         : "every slot on %s is taken: waiting", options.device.port.c_str());
  start_error = "busy";
  next_attempt = t + kRetryInterval;
  return -EBUSY;
}

int Process::wait_for_memory(stack::Time t) {
  constexpr const char* kReason = "no memory for a stack: is there a limit (ulimit -v)?";
  if (!options.device.port.empty() && device == nullptr) {  // as if it were opening the device that takes too much
    in_use = misconfigured = false;
    (void)lack_device(options.device.port, kReason);
    return start_without_device();
  }
  if (start_error != "memory") log(LogLevel::warning, "%s", kReason);
  start_error = "memory";
  next_attempt = t + kRetryInterval;
  return -ENOMEM;
}

// The device can't be opened: -ENETDOWN, if it is not the end.
int Process::start_without_device() {
  if (on_kernel) return next_attempt = stack::kNever, -ENETDOWN;
  for (int fd = 0; fd < files.end(); ++fd) {
    const Socket* s = files.socket(fd);
    if (s != nullptr && s->state == Socket::State::listening) exit_without_device();
  }
  if (misconfigured) exit_without_device();  // as for any other mistake in the configuration
  return -ENETDOWN;
}

void Process::set_captures(stack::CaptureSet* set) {
  captures = set;
  for_each_stack([set](Instance& i) { i.worker().set_captures(set); });
}

int Process::ensure_started(Shard& shard) {
  if (shard.instance != nullptr) return 0;
  // The first one's service thread is there for what is the process's: relays, mtcp-stat, a farewell.
  if (const int error = &shard != &first() ? ensure_started(first()) : 0; error != 0) return error;
  if (exiting) return -ESHUTDOWN;
  if (on_kernel) return -ENETDOWN;
  const stack::Time t = now();
  if (t < next_attempt) return -EBUSY;
  if (!memory_to_spare() || !memory_available(kStackMemory)) return wait_for_memory(t);
  follow_kernel(shard);
  if (&shard != &first() && options.stack.interface.from_kernel && shard.follower == nullptr) return -EMFILE;
  stack::OwnedAttachment attachment;
  std::unique_ptr<stack::PacketPool> heap;
  if (options.device.port.empty()) {
    heap = std::make_unique<stack::HeapPool>(packets_of(options));
  } else {
    const int opened = open_device_now();
    if (opened == -EBUSY || (opened != 0 && successor && in_use)) return wait_for_slot(t);
    if (opened != 0) return start_without_device();
    attachment = device->join();
    if (attachment.port == nullptr) return wait_for_slot(t);
  }
  if (const int e = load_secrets(); e != 0) return e;
  stack::Secrets secrets = *lasting;
  if (const auto shared = device != nullptr ? device->secrets() : std::nullopt; shared) {
    secrets.key = *shared;
  } else if (!fill_random(std::as_writable_bytes(std::span(secrets.key)))) {
    return -EAGAIN;
  }
  clock_start();
  shard.instance = std::make_unique<Instance>(options, std::move(attachment), std::move(heap), secrets, shard.follower.get());
  shard.instance->relay = &relay;
  shard.instance->kernel = &kernel;
  shard.instance->worker().set_captures(captures);
  if (options.device.has_many_stacks())
    shard.instance->worker().set_still_held(
        [this](const stack::Endpoint& e) { return !last_of_device && listens_in_kernel(kernel, e); });
  if (options.awaits_joining_listeners())
    shard.instance->worker().set_expected([this](const stack::Endpoint& e) { return is_listener_of_stack(kernel, e); });
  start_error.clear();
  start_listeners();
  if (options.service_thread) shard.service_thread = std::make_unique<ServiceThread>(*this, shard);
  log(LogLevel::info, "a stack on %s",
      options.device.port.empty() ? "the loopback wire"
                                  : with_worker_number(options.device.port, worker_number.number).c_str());
  return 0;
}

}  // namespace mtcp::intercept
