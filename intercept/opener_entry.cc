// The engine's symbol for mtcp-open: intercept/opener.hh.
#include "intercept/opener.hh"

#include <algorithm>
#include <memory>
#include <utility>

#include "conf/load.hh"
#include "intercept/device/default_route.hh"
#include "intercept/device/device_config.hh"
#include "intercept/engine.hh"
#include "stack/port/device.hh"

namespace mtcp::intercept {
namespace {

class Opened final : public OpenedDevice {
 public:
  Opened(std::unique_ptr<stack::Device> device, std::string interface) : device_(std::move(device)), interface_(std::move(interface)) {}

  [[nodiscard]] std::string interface() const override { return interface_; }
  std::size_t invite(std::span<std::byte> terms, std::span<int> descriptors) override {
    const stack::DeviceInvitation invitation = device_->invite();
    static_assert(sizeof invitation.terms == kInvitationTerms);
    if (invitation.descriptors.size() > descriptors.size() || terms.size() < invitation.terms.size()) return 0;
    std::ranges::copy(invitation.terms, terms.begin());
    std::ranges::copy(invitation.descriptors, descriptors.begin());
    return invitation.descriptors.size();
  }
  void tidy() override { device_->tidy(); }

 private:
  std::unique_ptr<stack::Device> device_;
  std::string interface_;
};

int open(const char* path, const CheckListener& listener, OpenedDevice*& opened) {
  Options options;
  const auto wrong = [&](const std::string& problem, int status) {
    listener.problem(listener.context, problem.c_str());
    return status;
  };
  const conf::LoadError error = conf::load(path, options);
  for (const std::string& problem : error.all) listener.problem(listener.context, problem.c_str());
  if (error.failed) return kExitConfiguration;
  settle_port(options);
  if (options.device.is_automatic())
    return wrong("there is no default route, and so no interface to open; name one: port = \"net_af_xdp0,iface=NAME,share=kernel\"", kExitUnavailable);
  const std::string interface = stack::value_of(options.device.port, "iface");
  if (interface.empty() || options.device.is_private())
    return wrong(std::string(path) + ": port in [device]: an interface of the kernel is what programs can share", kExitConfiguration);
  std::string message;
  bool misconfigured = false;
  stack::DeviceConfig config = device_config(options);
  config.misconfigured = &misconfigured;
  config.keeps_interface = true;
  auto device = stack::open_device(config, message);
  if (device == nullptr)
    return wrong(options.device.port + ": " + message, misconfigured ? kExitConfiguration : kExitUnavailable);
  opened = new Opened(std::move(device), interface);
  return 0;
}

}  // namespace
}  // namespace mtcp::intercept

extern "C" __attribute__((visibility("default"))) int mtcp_engine_open(const char* path,
                                                                       const mtcp::intercept::CheckListener* listener,
                                                                       mtcp::intercept::OpenedDevice** device) {
  return mtcp::intercept::open(path, *listener, *device);
}
