#include "stack/port/dpdk/share/sharing.hh"

#include <algorithm>

#include "stack/port/dpdk/af_xdp/xdp_program.hh"
#include "stack/port/dpdk/interface/kernel_interface.hh"
#include "stack/port/dpdk/share/layout.h"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::string_view kPacketSockets = "net_af_packet";

std::string what_is_wrong(const DeviceConfig& config, const std::string& share, const std::string& mode) {
  if (!share.empty() && share != "kernel") return "share=" + share + ": it can be shared with the kernel only; write share=kernel";
  if (!mode.empty() && mode != "native" && mode != "generic" && mode != "no")
    return "xdp=" + mode + ": expected xdp=native or xdp=generic, or, with share=kernel, xdp=no";
  if (share.empty()) return mode == "no" ? "xdp=no goes with share=kernel only; net_af_packet0 uses no XDP" : "";
  if (config.port.starts_with(kPacketSockets) && !mode.empty() && mode != "no")
    return "xdp=" + mode + ": net_af_packet uses no XDP, net_af_xdp does";
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
  sharing.automatic = mode.empty();
  sharing.tagged = config.port.starts_with(kPacketSockets);
  if (sharing.tagged) {
    sharing.summary = interface_of(config.port) + " is shared with the kernel: by packet sockets, without XDP" +
                      (mode.empty() ? "" : ", as xdp= says");
    return true;
  }
  // A driver without hardware that has the program takes from the other end what lets it send 64 KB at a time; the kernel's own
  // connections would have a sixth of their speed.
  sharing.generic = mode.empty() ? sharing.shared && on_virtual : mode == "generic";
  sharing.native = mode.empty() ? sharing.shared && !sharing.generic : mode == "native";
  if (!sharing.shared && mode.empty()) return true;
  sharing.summary = interface_of(config.port) + (sharing.shared ? " is shared with the kernel" : " is the stack's") + ": XDP in " +
                    (sharing.generic ? "generic" : "native") + " mode" + (mode.empty() ? "" : ", as xdp= says") +
                    (sharing.shared && sharing.generic ? ": the kernel's programs receive bulk data from this machine a third slower" : "");
  return true;
}

// XDP above the driver copies every frame of a sender on this machine once more, and those that are the kernel's.
bool shares_without_xdp(const std::string& port) {
  if (!port.starts_with("net_af_xdp") || value_of(port, "share") != "kernel") return false;
  const std::string mode = value_of(port, "xdp");
  return mode == "no" || (mode.empty() && is_virtual(interface_of(port)));
}

std::string port_for_sharing(const std::string& port) {
  if (!shares_without_xdp(port) || (value_of(port, "xdp") != "no" && !may_classify())) return port;
  return port_of_packet_sockets(port);
}

std::string port_of_packet_sockets(const std::string& port) { return std::string(kPacketSockets) + "0" + port.substr(std::min(port.find(','), port.size())); }

std::string without_sharing(std::string port) {
  for (const char* key : {"share", "xdp"}) {
    const std::string part = "," + std::string(key) + "=" + value_of(port, key);
    if (const std::size_t at = port.find(part); at != port.npos) port.erase(at, part.size());
  }
  return port;
}

}  // namespace mtcp::stack::dpdk
