#include "intercept/process.hh"

#include <unistd.h>

#include <utility>

#include "intercept/steward.hh"

namespace mtcp::intercept {
namespace {

std::string program_path() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  return n > 0 ? std::string(path, static_cast<std::size_t>(n)) : std::string();
}

}  // namespace

Process::Process(const Services& given, Options settings, OpenDevice open)
    : services(given),
      kernel(*given.kernel),
      options(std::move(settings)),
      files(*given.fds),
      pool(kernel, files),
      router(options, program_path()),
      open_device(open) {}

Process::~Process() = default;

}  // namespace mtcp::intercept
