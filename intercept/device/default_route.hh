// port = "auto": the interface that leads to everywhere, shared with the kernel.
#pragma once

#include <string>
#include <string_view>

#include "intercept/options.hh"

namespace mtcp::intercept {

// The interface of the default route with the least metric, in what /proc/net/route and /proc/net/ipv6_route say; the
// second only if the first has none. Empty: there is no default route.
[[nodiscard]] std::string default_interface(std::string_view ipv4_routes, std::string_view ipv6_routes);
// Puts the port string of that interface in the place of "auto", which stays if there is none.
void settle_port(Options& options);

}  // namespace mtcp::intercept
