#include "stack/port/dpdk/share/sharing.hh"

#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/share/layout.h"

namespace mtcp::stack::dpdk {

namespace {

std::string what_is_wrong(const DeviceConfig& config, const std::string& share, const std::string& mode) {
  if (!share.empty() && share != "kernel") return "share=" + share + ": it can be shared with the kernel only; write share=kernel";
  if (!mode.empty() && mode != "native" && mode != "generic") return "xdp=" + mode + ": expected xdp=native or xdp=generic";
  if (share.empty()) return {};
  if (config.addresses.size() > MTCP_SHARE_ADDRESSES)
    return "share=kernel: at most " + std::to_string(MTCP_SHARE_ADDRESSES) + " addresses can be shared";
  return {};
}

}  // namespace

bool read_sharing(const DeviceConfig& config, bool on_virtual, Sharing& sharing, std::string& message) {
  const std::string share = value_of(config.port, "share"), mode = value_of(config.port, "xdp");
  message = what_is_wrong(config, share, mode);
  if (!message.empty()) {
    if (config.misconfigured != nullptr) *config.misconfigured = true;
    return false;
  }
  sharing.shared = !share.empty();
  // A driver without hardware that has the program takes from the other end what lets it send 64 KB at a time; the kernel's own
  // connections would have a third of their speed.
  sharing.generic = mode.empty() ? sharing.shared && on_virtual : mode == "generic";
  sharing.native = mode.empty() ? sharing.shared && !sharing.generic : mode == "native";
  if (!sharing.shared && mode.empty()) return true;
  sharing.summary = interface_of(config.port) + (sharing.shared ? " is shared with the kernel" : " is the stack's") + ": XDP in " +
                    (sharing.generic ? "generic" : "native") + " mode" + (mode.empty() ? "" : ", as xdp= says");
  return true;
}

std::string without_sharing(std::string port) {
  for (const char* key : {"share", "xdp"}) {
    const std::string part = "," + std::string(key) + "=" + value_of(port, key);
    if (const std::size_t at = port.find(part); at != port.npos) port.erase(at, part.size());
  }
  return port;
}

}  // namespace mtcp::stack::dpdk
