// What kind of device a port string means, and opening it.
#include <ctype.h>

#include <algorithm>
#include <string_view>

#include "stack/port/check_device.hh"
#include "stack/port/device.hh"
#include "stack/port/dpdk/dpdk_device.hh"

namespace mtcp::stack {

namespace dpdk {

namespace {

// "03:00.0" or "0000:03:00.0", perhaps with arguments.
bool is_pci_address(std::string_view port) {
  const std::string_view address = port.substr(0, port.find(','));
  return address.size() >= 7 && address[address.size() - 2] == '.' && address[address.size() - 5] == ':' &&
         std::ranges::all_of(address, [](unsigned char c) { return isxdigit(c) || c == ':' || c == '.'; });
}

Kind kind_of(std::string_view port) {
  if (is_pci_address(port)) return Kind::pci;
  if (port.starts_with("net_af_packet") || port.starts_with("eth_af_packet")) return Kind::af_packet;
  if (port.starts_with("net_af_xdp")) return Kind::af_xdp;
  if (port.starts_with("net_memif")) return Kind::memif;
  return Kind::other;
}

}  // namespace

}  // namespace dpdk

namespace {

std::unique_ptr<dpdk::DpdkDevice> device_of(DeviceConfig config, std::string port) {
  config.port = std::move(port);
  return std::make_unique<dpdk::DpdkDevice>(dpdk::kind_of(config.port), config);
}

}  // namespace

std::unique_ptr<Device> open_device(const DeviceConfig& config, std::string& message) {
  auto device = device_of(config, dpdk::port_for_sharing(config.port));
  if (device->open(message)) return device;
  if (!device->wants_packet_sockets() || !dpdk::may_classify()) return nullptr;
  device.reset();
  device = device_of(config, dpdk::port_of_packet_sockets(config.port));
  if (!device->open(message)) return nullptr;
  return device;
}

bool check_device(const DeviceConfig& config, std::string& message) {
  return device_of(config, dpdk::port_for_sharing(config.port))->check(message);
}

}  // namespace mtcp::stack
