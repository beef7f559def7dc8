#include "intercept/process.hh"

#include <sched.h>

#include <utility>

#include "intercept/background/service_thread.hh"
#include "intercept/device/kernel_follower.hh"
#include "intercept/lifetime/program_key.hh"

namespace mtcp::intercept {
namespace {

// Those of the first thread: the calling one may have chosen its own by now.
std::uint32_t cpus() {
  cpu_set_t set;
  return sched_getaffinity(::getpid(), sizeof set, &set) == 0 ? static_cast<std::uint32_t>(CPU_COUNT(&set)) : 1;
}

}  // namespace

Process::Process(const Services& given, Options settings, OpenDevice open, OpenAsGuest as_guest, ReadFilter read_filter)
    : services(given),
      kernel(*given.kernel),
      options(std::move(settings)),
      files(*given.fds),
      shards(*this),
      router(options, this_program()),
      filter_file(*this, read_filter),
      open_device(open),
      open_as_guest(as_guest) {
  program = program_number();
  if (options.stacks == 0) options.stacks = cpus();
}

Process::~Process() {
  shards.for_each([](Shard& s) { s.service_thread.reset(); });
  shards.for_each([](Shard& s) { s.instance.reset(); });
}

}  // namespace mtcp::intercept
