#include "intercept/process.hh"

#include <utility>

#include "intercept/device/kernel_follower.hh"
#include "intercept/background/service_thread.hh"

namespace mtcp::intercept {

Process::Process(const Services& given, Options settings, OpenDevice open, OpenAsGuest as_guest, ReadFilter read_filter)
    : services(given),
      kernel(*given.kernel),
      options(std::move(settings)),
      files(*given.fds),
      pool(kernel, files),
      router(options, this_program()),
      filter_file(*this, read_filter),
      open_device(open),
      open_as_guest(as_guest) {}

Process::~Process() = default;

}  // namespace mtcp::intercept
