// The engine's other exported symbols: intercept/check.hh.
#include "intercept/check.hh"

#include <string>

#include "conf/load.hh"
#include "conf/text.hh"
#include "intercept/device/default_route.hh"
#include "intercept/device/device_config.hh"
#include "intercept/device/worker_number.hh"
#include "intercept/engine.hh"
#include "stack/port/check_device.hh"

namespace mtcp::intercept {
namespace {

std::string networks(const Options& options) {
  if (options.stack.interface.from_kernel) return "the kernel's on " + stack::value_of(options.device.port, "iface");
  std::string text;
  for (const auto& a : options.stack.interface.addresses)
    text += (text.empty() ? "" : ", ") + conf::to_text(stack::Prefix{a.address, a.prefix_length});
  return text.empty() ? "none" : text;
}

std::string gateways(const Options& options) {
  if (options.stack.interface.from_kernel) return "the kernel's";
  std::string text;
  for (const auto& gateway : options.stack.interface.gateways) text += (text.empty() ? "" : ", ") + conf::to_text(gateway);
  return text.empty() ? "none" : text;
}

void tell(const Options& options, const CheckListener& listener) {
  const auto fact = [&](const char* name, const std::string& value) {
    listener.fact(listener.context, name, value.c_str());
  };
  const std::string& port = options.device.port;
  fact("device", port.empty() ? "none (within the process only)" : port);
  fact("address", networks(options));
  fact("gateway", gateways(options));
  fact("loopback", options.stack.loopback ? "the stack's" : "the kernel's");
  fact("poll", options.poll.busy ? "busy" : "adaptive, " + conf::to_text(options.poll.spin));
  fact("rules", std::to_string(options.rules.size()));
}

int check(const char* path, const CheckListener& listener) {
  Options options;
  const conf::LoadError error = conf::load(path, options);
  for (const std::string& problem : error.all) listener.problem(listener.context, problem.c_str());
  if (error.failed) return kExitConfiguration;
  settle_port(options);
  tell(options, listener);
  if (options.device.port.empty()) return 0;
  std::string message;
  bool misconfigured = false;
  stack::DeviceConfig device = device_config(options);
  device.port = with_worker_number(device.port, 0);
  device.misconfigured = &misconfigured;
  if (stack::check_device(device, message)) return 0;
  if (options.device.falls_back() && !misconfigured)
    message += ". The program would run on the kernel (on_failure)";
  listener.problem(listener.context, (std::string(path) + ": port in [device]: " + message).c_str());
  return misconfigured ? kExitConfiguration : kExitUnavailable;
}

}  // namespace
}  // namespace mtcp::intercept

extern "C" {

__attribute__((visibility("default"))) int mtcp_engine_check(const char* path,
                                                             const mtcp::intercept::CheckListener* listener) {
  return mtcp::intercept::check(path, *listener);
}

__attribute__((visibility("default"))) const char* mtcp_engine_version() { return MTCP_VERSION; }
}
