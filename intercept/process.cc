#include "intercept/process.hh"

#include <utility>

#include "intercept/background/service_thread.hh"
#include "intercept/lifetime/program_key.hh"

namespace mtcp::intercept {

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
  if (options.stacks == 0) options.stacks = cpus;
}

Process::~Process() {
  early_start.end();
  shards.for_each([](Shard& s) { s.service_thread.reset(); });
  shards.for_each([](Shard& s) { s.instance.reset(); });
}

}  // namespace mtcp::intercept
