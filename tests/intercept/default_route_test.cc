#include "intercept/device/default_route.hh"

#include <catch2/catch.hpp>

using namespace mtcp::intercept;

namespace {

const std::string kHead = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
std::string route(const char* name, const char* destination, const char* mask, const char* flags, int metric) {
  return std::string(name) + "\t" + destination + "\t0101A8C0\t" + flags + "\t0\t0\t" + std::to_string(metric) + "\t" + mask + "\t0\t0\t0\n";
}
const char* const kAny = "00000000";
const std::string kV6Default =
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 "
    "00000000 00000003     eth6\n";
const std::string kV6Reject =
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 "
    "00000000 00200200       lo\n";

}  // namespace

TEST_CASE("auto: the default route's interface, of several the one with the least metric") {
  CHECK(default_interface(kHead + route("eth1", "0002000A", "00FFFFFF", "0001", 0) + route("eth0", kAny, kAny, "0003", 100), "") == "eth0");
  CHECK(default_interface(kHead + route("wlan0", kAny, kAny, "0003", 600) + route("eth0", kAny, kAny, "0003", 100), "") == "eth0");
  CHECK(default_interface(kHead + route("eth0", kAny, kAny, "0003", 100) + route("wlan0", kAny, kAny, "0003", 600), "") == "eth0");
}

TEST_CASE("auto: what is down, rejects, or is half of the world is no default route") {
  CHECK(default_interface(kHead + route("eth0", kAny, kAny, "0002", 0), "").empty());
  CHECK(default_interface(kHead + route("lo", kAny, kAny, "0201", 0), "").empty());
  CHECK(default_interface(kHead + route("tun0", kAny, "00000080", "0003", 0), "").empty());
  CHECK(default_interface("", kV6Reject).empty());
  CHECK(default_interface("", "").empty());
}

TEST_CASE("auto: without a default route of IPv4, that of IPv6") {
  CHECK(default_interface(kHead, kV6Reject + kV6Default) == "eth6");
  CHECK(default_interface(kHead + route("eth0", kAny, kAny, "0003", 100), kV6Default) == "eth0");
}
