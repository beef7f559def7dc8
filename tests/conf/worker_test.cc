// {worker} in the port string.
#include <catch2/catch.hpp>

#include "tests/conf/loaded.hh"

using namespace mtcp;
using namespace mtcp::conf;

namespace {

Loaded load_port(const std::string& port, const std::string& more = "queues = 2\n") {
  return load_text("[device]\nport = \"" + port + "\"\n" + more + "[interface]\naddress = \"10.9.1.1/24\"\n");
}

}  // namespace

TEST_CASE("{worker} is taken where it tells wires apart") {
  const std::string port = GENERATE("net_memif0,role=server,socket-abstract=yes,socket=/a-{worker}",
                                    "net_memif0,role=client,socket=/run/{worker}/a,id=3",
                                    "net_memif0,role=client,socket=/a,id={worker}",
                                    "net_memif{worker},socket=/a-{worker},role=server,id={worker}");
  const Loaded l = load_port(port);
  CHECK(l.error == "");
  CHECK(l.options.device.port == port);
  CHECK(l.options.device.is_numbered());
}

TEST_CASE("a port without {worker} has no number") {
  CHECK_FALSE(load_port("net_memif0,role=server,socket=/a").options.device.is_numbered());
}

TEST_CASE("{worker} for a device that all processes share is an error") {
  const std::string port =
      GENERATE("net_af_packet0,iface=eth{worker}", "net_af_packet{worker},iface=eth0", "0000:00:0{worker}.0");
  const Loaded l = load_port(port);
  CHECK(l.error ==
        "2:8: {worker} in port: all processes share this device; {worker} is for those that each process "
        "opens for "
        "itself (net_memif)");
}

TEST_CASE("{worker} without a number of queues is an error") {
  const std::string queues = GENERATE("", "queues = \"auto\"\n");
  const Loaded l = load_port("net_memif0,role=server,socket=/a-{worker}", queues);
  CHECK(
      l.error ==
      "2:8: {worker} in port needs queues: expected the number of processes at a time, as on the other end");
}

TEST_CASE("any other placeholder is an error that names it") {
  struct Wrong {
    const char* port;
    const char* named;
  };
  const auto w = GENERATE(values<Wrong>({
      {"net_memif0,role=server,socket=/a-{pid}", "{pid}"},
      {"net_memif0,role=server,socket=/a-{worker}-{cpu},id=0", "{cpu}"},
      {"net_memif0,role=server,socket=/a-{Worker}", "{Worker}"},
      {"net_memif0,role=server,socket=/a-{worker,id=0", "{worker"},
      {"net_memif0,role=server,socket=/a-worker}", "}"},
      {"net_af_packet0,iface={name}", "{name}"},
  }));
  const Loaded l = load_port(w.port);
  CHECK(l.error == "2:8: unknown placeholder " + std::string(w.named) + " in port: expected {worker}");
}

TEST_CASE("memif servers that would share a socket are an error") {
  const Loaded l = load_port("net_memif0,role=server,socket=/a,id={worker}");
  CHECK(l.error == "2:8: a memif server needs a socket of its own: expected {worker} in socket=");
}

TEST_CASE("memif clients that would share a wire are an error") {
  const Loaded l = load_port("net_memif{worker},role=client,socket=/a");
  CHECK(l.error == "2:8: {worker} must tell the wires apart: expected it in socket= or id=");
}
