// The engine's one exported symbol: configuration in, Engine out.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "conf/load.hh"
#include "intercept/device/default_route.hh"
#include "intercept/device/device_config.hh"
#include "intercept/process.hh"
#include "intercept/support/log.hh"
#include "intercept/support/memory.hh"
#include "stack/port/device.hh"

namespace mtcp::intercept {
namespace {

// $MTCP_LOG instead of [log] level, for one run (mtcp-run -v). False if it is set to something else than a
// level.
bool take_log_level(Options& options) {
  const char* wanted = secure_getenv("MTCP_LOG");
  if (wanted == nullptr || *wanted == '\0') return true;
  static constexpr std::array<std::string_view, 5> kNames{"none", "error", "warning", "info", "debug"};
  const auto found = std::find(kNames.begin(), kNames.end(), wanted);
  if (found == kNames.end()) return false;
  options.log_level = static_cast<LogLevel>(found - kNames.begin());
  return true;
}

bool read_filter(const std::string& path, std::vector<stack::FilterRule>& rules, std::string& message) {
  Options options;
  const conf::LoadError error = conf::load(path, options);
  rules = std::move(options.stack.filter);
  message = error.message;
  return !error.failed;
}

Engine* start(const Services& services, EngineFailure& failure) {
  const std::string path = conf::find();
  if (path.empty()) {
    failure.message = "no configuration (MTCP_CONF or /etc/mtcp/mtcp.toml)";
    return nullptr;
  }
  constexpr std::size_t kBeside = 1 << 20;  // for the configuration, and what is made with the first socket
  constexpr const char* kNoMemory = "no memory for the engine: is there a limit (ulimit -v)?";
  if (!memory_available(kBeside)) {
    failure = {.message = kNoMemory, .exit_status = kExitUnavailable};
    return nullptr;
  }
  Options options;
  if (const conf::LoadError error = conf::load(path, options); error.failed) {
    static std::string reason;  // the shim reads it after this has returned
    reason = error.message;
    failure = {.message = reason.c_str(), .exit_status = kExitConfiguration};
    return nullptr;
  }
  settle_port(options);
  const bool known = take_log_level(options);
  log_start(services, options.log_level, options.log_file.c_str());
  if (!known) log(LogLevel::warning, "MTCP_LOG is none of none, error, warning, info, debug: ignored");
  if (!memory_available(Files::memory_for(*services.fds) + kBeside)) {
    failure = {.message = kNoMemory,
               .exit_status = options.device.falls_back() ? 0 : kExitUnavailable};
    return nullptr;
  }
  // Lives as long as the process: threads may be inside it until the very end.
  auto* process = new Process(services, std::move(options), &stack::open_device, &stack::open_as_guest, &read_filter);
  if (log_descriptor() >= 0) process->files.put_reserved(log_descriptor());
  return process;
}

}  // namespace
}  // namespace mtcp::intercept

extern "C" __attribute__((visibility("default"))) mtcp::intercept::Engine* mtcp_engine_entry(
    std::uint32_t abi, const mtcp::intercept::Services* services, mtcp::intercept::EngineFailure* failure) {
  if (abi != mtcp::intercept::kEngineAbi) {
    *failure = {.message = "libmtcp_engine.so and libmtcp_shim.so are of different versions",
                .exit_status = mtcp::intercept::kExitConfiguration};
    return nullptr;
  }
  return mtcp::intercept::start(*services, *failure);
}
