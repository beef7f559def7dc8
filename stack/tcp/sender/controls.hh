// The congestion controls that there are. A new one: its file, a line here, one in the table in controls.cc.
#pragma once

#include "stack/tcp/sender/window_control.hh"

namespace mtcp::stack {

[[nodiscard]] const CongestionControl& reno();   // RFC 5681
[[nodiscard]] const CongestionControl& cubic();  // RFC 9438
[[nodiscard]] const CongestionControl& bbr();    // Linux's version 1

[[nodiscard]] const CongestionControl& dctcp();  // RFC 8257

}  // namespace mtcp::stack
