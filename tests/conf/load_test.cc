#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <utility>

#include "conf/keys.hh"
#include "tests/conf/loaded.hh"

using namespace mtcp;
using namespace mtcp::conf;
using stack::microseconds;
using stack::milliseconds;
using stack::seconds;

TEST_CASE("every section is read into the options") {
  const Loaded l = load_text(R"(
[device]
port = "net_af_packet0,iface=veth-srv"
queues = 4
hugepages = "off"
rx_ring = 2048
tx_ring = 512
mtu = 9000
packets = 4096
[interface]
address = ["10.9.0.2/24", "10.9.1.2/16"]
gateway = "10.9.0.1"
[stack]
poll = "busy"
spin = "75us"
kernel_interval = 30
service_thread = false
loopback = true
[log]
level = "debug"
file = "/tmp/x.log"
)");
  REQUIRE(l.error == "");
  const auto& o = l.options;
  CHECK(o.device.port == "net_af_packet0,iface=veth-srv");
  CHECK(o.device.queues == 4);
  CHECK(o.device.hugepages == intercept::Toggle::off);
  CHECK(o.device.rx_ring == 2048);
  CHECK(o.device.tx_ring == 512);
  CHECK(o.stack.interface.mtu == 9000);
  CHECK(o.device.packets == 4096);
  REQUIRE(o.stack.interface.addresses.size() == 2);
  CHECK(o.stack.interface.addresses[0].address == stack::IpAddress::v4(10, 9, 0, 2));
  CHECK(o.stack.interface.addresses[0].prefix_length == 120);
  CHECK(o.stack.interface.addresses[1].prefix_length == 112);
  REQUIRE(o.stack.interface.gateways.size() == 1);
  CHECK(o.stack.interface.gateways[0] == stack::IpAddress::v4(10, 9, 0, 1));
  CHECK(o.poll.busy);
  CHECK(o.poll.spin == microseconds(75));
  CHECK(o.poll.kernel_interval == microseconds(30));
  CHECK_FALSE(o.service_thread);
  CHECK(o.stack.loopback);
  CHECK(o.log_level == intercept::LogLevel::debug);
  CHECK(o.log_file == "/tmp/x.log");
}

TEST_CASE("the tcp section has the kernel's names and units") {
  const Loaded l = load_with(R"(
[tcp]
rmem = [8192, 65536, 1048576]
wmem = [4096, 4096, 4096]
congestion_control = "reno"
slow_start_after_idle = false
fin_timeout = 30
keepalive_time = "2min"
keepalive_intvl = 10
keepalive_probes = 3
rto_min = 5000
rto_max = 60000
delayed_ack = 4
tw_reuse_delay = 1
rfc1337 = true
syn_linear_timeouts = 0
invalid_ratelimit = 250
ip_local_port_range = [20000, 30000]
syncookies = false
max_syn_backlog = 128
)");
  REQUIRE(l.error == "");
  const auto& t = l.options.stack.tcp;
  CHECK(t.rmem.min == 8192);
  CHECK(t.rmem.initial == 65536);
  CHECK(t.rmem.max == 1048576);
  CHECK(t.wmem.max == 4096);
  CHECK(t.congestion_control == "reno");
  CHECK_FALSE(t.slow_start_after_idle);
  CHECK(t.fin_timeout == seconds(30));
  CHECK(t.keepalive_time == seconds(120));
  CHECK(t.keepalive_intvl == seconds(10));
  CHECK(t.keepalive_probes == 3);
  CHECK(t.rto_min == milliseconds(5));
  CHECK(t.rto_max == seconds(60));
  CHECK(t.delayed_ack == milliseconds(4));
  CHECK(t.tw_reuse_delay == milliseconds(1));
  CHECK(t.rfc1337);
  CHECK(t.syn_linear_timeouts == 0);
  CHECK(t.invalid_ratelimit == milliseconds(250));
  CHECK(t.ip_local_port_first == 20000);
  CHECK(t.ip_local_port_last == 30000);
  CHECK_FALSE(t.syncookies);
  CHECK(t.max_syn_backlog == 128);
}

TEST_CASE("\"auto\" is the default of what has it") {
  const Loaded l = load_with("[device]\nqueues = \"auto\"\npackets = \"auto\"\nhugepages = \"auto\"\n");
  REQUIRE(l.error == "");
  CHECK(l.options.device.queues == 0);
  CHECK(l.options.device.packets == 0);
  CHECK(l.options.device.hugepages == intercept::Toggle::automatic);
}

namespace {
// A line that is wrong, and the message without its place.
struct Wrong {
  const char* text;
  const char* place;
  const char* message;
};
}  // namespace

TEST_CASE("a wrong line is reported with its place and what would be right") {
  const Wrong w = GENERATE(values<Wrong>({
      {"[tcp]\nrmen = [1, 2, 3]", "3:1", "unknown key \"rmen\" in [tcp] (did you mean \"rmem\"?)"},
      {"[tcp]\ntcp_rmem = [1, 2, 3]", "3:1", "unknown key \"tcp_rmem\" in [tcp] (did you mean \"rmem\"?)"},
      {"[tcp]\nspin = 5", "3:1", "unknown key \"spin\" in [tcp] (did you mean \"spin\" in [stack]?)"},
      {"[tcp]\nxyzzy = 5", "3:1", "unknown key \"xyzzy\" in [tcp]"},
      {"[devcie]\nport = 1", "2:2", "unknown section [devcie] (did you mean \"device\"?)"},
      {"[something]\n", "2:2",
       "unknown section [something] (there are: [device], [interface], [stack], [tcp], [log], [[rule]], [[filter]])"},
      {"mtu = 1500", "2:1", "key \"mtu\" outside of a section (did you mean \"mtu\" in [device]?)"},
      {"tcp = 5", "2:7", "tcp is a section: expected [tcp]"},
      {"[device]\nmtu = 100", "3:7", "mtu = 100: expected a whole number from 576 to 9600"},
      {"[device]\nmtu = \"1500\"", "3:7", "mtu = \"1500\": expected a whole number from 576 to 9600"},
      {"[device]\nmtu = 1500.5", "3:7",
       "mtu = a number with a fraction: expected a whole number from 576 to 9600"},
      {"[device]\nmtu = -1", "3:7", "mtu = -1: expected a whole number from 576 to 9600"},
      {"[device]\nrx_ring = 9223372036854775807", "3:11",
       "rx_ring = 9223372036854775807: expected a whole number from 64 to 32768"},
      {"[device]\nqueues = \"many\"", "3:10",
       "queues = \"many\": expected \"auto\" or a whole number from 1 to 127"},
      {"[device]\nhugepages = true", "3:13", "hugepages = true: expected \"auto\", \"on\" or \"off\""},
      {"[device]\nport = \"\"", "3:8", "port = \"\": expected a text"},
      {"[device]\nport = \"a\\nb\"", "3:8", "port = \"a\nb\": a control character has no place here"},
      {"[stack]\nservice_thread = 1", "3:18", "service_thread = 1: expected true or false"},
      {"[stack]\nspin = \"50\"", "3:8",
       "spin = \"50\": expected a time like \"100us\" (us, ms, s, min) from 0 to 10s"},
      {"[stack]\nspin = \"1min\"", "3:8",
       "spin = \"1min\": expected a time like \"100us\" (us, ms, s, min) from 0 to 10s"},
      {"[stack]\nspin = -1", "3:8",
       "spin = -1: expected a time like \"100us\" (us, ms, s, min) from 0 to 10s"},
      {"[tcp]\ncongestion_control = \"vegas\"", "3:22",
       "congestion_control = \"vegas\": expected \"cubic\", \"reno\", \"bbr\" or \"dctcp\""},
      {"[tcp]\nrmem = [4096, 131072]", "3:8",
       "rmem = a list: expected [min, default, max] in bytes, ascending, each from 2048 to 2147483647"},
      {"[tcp]\nrmem = [8192, 4096, 16384]", "3:8", "rmem = a list: min, default and max must not descend"},
      {"[tcp]\nip_local_port_range = [60000, 50000]", "3:23",
       "ip_local_port_range = a list: expected [first, last], ascending, each from 1 to 65535"},
      {"[tcp]\nrto_min = \"2s\"\nrto_max = \"1s\"", "3:11", "rto_min (2s) is greater than rto_max (1s)"},
      {"[log]\nlevel = \"all\"", "3:9",
       "level = \"all\": expected \"none\", \"error\", \"warning\", \"info\" or \"debug\""},
      {"[interface]\naddress = [\"10.9.0.2\"]", "3:12",
       "address = \"10.9.0.2\": expected an address with its prefix length, like \"10.9.0.2/24\", a list "
       "of such, or \"kernel\""},
      {"[interface]\naddress = [\"10.9.0.2/33\"]", "3:12",
       "address = \"10.9.0.2/33\": expected an address with its prefix length, like \"10.9.0.2/24\", a "
       "list of such, or \"kernel\""},
      {"[interface]\naddress = [\"10.9.0.2/24\",\n\"10.9.0.2/16\"]", "4:1",
       "address = \"10.9.0.2/16\": this address is already in the list"},
      {"[interface]\naddress = \"10.9.0.0/24\"", "3:11",
       "address = \"10.9.0.0/24\": this is the network 10.9.0.0/24, not an address in it"},
      {"[interface]\naddress = \"10.9.0.255/24\"", "3:11",
       "address = \"10.9.0.255/24\": this is the broadcast address of 10.9.0.0/24"},
      {"[interface]\naddress = \"224.0.0.1/24\"", "3:11",
       "address = \"224.0.0.1/24\": this is not the address of a host"},
      {"[interface]\naddress = \"127.0.0.1/8\"", "3:11",
       "address = \"127.0.0.1/8\": a loopback address is the stack's by [stack] loopback = true"},
      {"[interface]\naddress = \"10.9.0.2/24\"\ngateway = \"10.8.0.1\"", "4:11",
       "gateway 10.8.0.1 is on no network of address (10.9.0.0/24)"},
      {"[interface]\naddress = \"10.9.0.2/24\"\ngateway = \"10.9.0.2\"", "4:11",
       "gateway 10.9.0.2 is the stack's own address"},
      {"[interface]\ngateway = \"10.9.0.2\"", "3:11", "gateway 10.9.0.2 is on no network of address"},
      {"[interface]\naddress = \"10.9.0.2/24\"\ngateway = [\"fd00::1\"]", "4:11",
       "gateway fd00::1 is on no network of address (10.9.0.0/24)"},
      {"[device]\nport = \"net_null0\"", "3:8", "a device needs an address: expected address in [interface]"},
      {"[device]\nport = \"net_null0\"\n[interface]\naddress = \"fe80::1/64\"", "5:11",
       "address fe80::1: a link-local address can't be the stack's"},
      {"[device]\nport = \"net_af_xdp0,iface=eth1,share=kernel\"\n[interface]\naddress = [\"10.9.0.2/24\", \"fd00::2/64\"]", "5:11",
       "address fd00::2: on an interface that is shared with the kernel those of IPv6 can't be chosen; expected address = "
       "\"kernel\", which are all that the kernel has there"},
      {"[device]\nport = \"net_af_packet0,iface=eth1\"\n[interface]\naddress = \"kernel\"", "5:11",
       "address = \"kernel\": with net_af_packet the kernel would answer what is the stack's; expected port = "
       "\"net_af_xdp0,iface=eth1,share=kernel\" in [device], or addresses of the stack's own here"},
      {"[device]\nport = \"net_af_xdp0,iface=eth1\"\n[interface]\naddress = \"kernel\"", "5:11",
       "address = \"kernel\": the kernel receives nothing on an interface that is not shared; expected port = "
       "\"net_af_xdp0,iface=eth1,share=kernel\" in [device], or addresses of the stack's own here"},
      {"[device]\nport = \"0000:00:04.0\"\n[interface]\naddress = \"kernel\"", "5:11",
       "address = \"kernel\": the kernel has no interface there; expected port = "
       "\"net_af_xdp0,iface=NAME,share=kernel\" in [device], or addresses of the stack's own here"},
      {"[interface]\naddress = \"kernel\"", "3:11",
       "address = \"kernel\": it is about an interface of the kernel; expected port = "
       "\"net_af_xdp0,iface=NAME,share=kernel\" in [device], or addresses of the stack's own here"},
      {"[device]\nport = \"net_af_xdp0,iface=eth1,share=kernel\"\n[interface]\ngateway = \"10.9.0.1\"", "5:11",
       "with address = \"kernel\" the routes are the kernel's, too: leave gateway out"},
  }));
  const std::string text = w.text;
  const Loaded l = text.starts_with("[stack]") ? load_text("\n" + text) : load_with(text);
  INFO(text);
  CHECK(l.failed);
  CHECK(l.error == std::string(w.place) + ": " + w.message);
}

TEST_CASE("of several mistakes the one that comes first in the file is reported") {
  const Loaded l = load_with("[tcp]\nfoo = 1\n[device]\nmtu = 1\n");
  CHECK(l.error == "3:1: unknown key \"foo\" in [tcp] (and 1 more; mtcp-run -n shows all)");
}

TEST_CASE("all mistakes are there, in the order of the file, and nothing that only follows from one") {
  const TemporaryFile file(
      "[device]\nport = \"net_af_packt0,iface=x\"\nqueues = 65\n[interface]\naddress = \"10.9.0.300/24\"\ngateway = \"10.8.0.1\"\n"
      "[tcp]\nrto_min = \"2s\"\nrto_max = \"1s\"\nfoo = 1\n");
  intercept::Options o;
  std::vector<std::string> all = load(file.path(), o).all;
  for (std::string& text : all) text = text.substr(file.path().size() + 1, 4);
  CHECK(all == std::vector<std::string>{"2:8:", "3:10", "5:11", "8:11", "10:1"});
}

TEST_CASE("a device that cannot be is an error") {
  const auto [port, message] = GENERATE(values<std::pair<const char*, const char*>>({
      {"net_af_packt0,iface=x", "there is no driver for net_af_packt0 (did you mean net_af_packet0?)"},
      {"net_nonsense0", "there is no driver for net_nonsense0 (there are: net_af_packet, net_af_xdp, net_memif, net_null, net_ring, "
                        "net_virtio_user, net_vdev_netvsc, net_failsafe, eth_af_packet)"},
      {"eth0", "\"eth0\" is neither a device string nor a PCI address; an interface of the kernel is written "
               "\"net_af_packet0,iface=eth0\", a card \"0000:00:04.0\""},
      {"net_af_xdp0,ifce=eth0", "\"net_af_xdp0,ifce=eth0\" names no interface: expected \"net_af_xdp0,iface=NAME\""},
  }));
  const Loaded l = load_text("[device]\nport = \"" + std::string(port) + "\"\n[interface]\naddress = \"10.9.0.2/24\"\n");
  CHECK(l.error == std::string("2:8: ") + message);
  for (const char* good : {"0000:00:04.0", "04:00.0", "net_af_packet0,iface=x", "eth_af_packet1,iface=x", "net_null0"})
    CHECK(load_text("[device]\nport = \"" + std::string(good) + "\"\n[interface]\naddress = \"10.9.0.2/24\"\n").error == "");
}

TEST_CASE("a program can go on in the kernel only where that has the stack's address") {
  const auto loaded = [](const char* port, const char* what) {
    return load_text("[device]\nport = \"" + std::string(port) + "\"\non_failure = \"" + what + "\"\n[interface]\naddress = \"10.9.0.2/24\"\n");
  };
  CHECK(loaded("net_af_packet0,iface=x", "kernel").error ==
        "3:14: on_failure = \"kernel\": the kernel does not have the stack's address; expected share=kernel in port, or \"exit\"");
  for (const char* port : {"auto", "net_af_xdp0,iface=x,share=kernel"}) {
    CHECK(loaded(port, "kernel").options.device.falls_back());
    CHECK(loaded(port, "auto").options.device.falls_back());
    CHECK_FALSE(loaded(port, "exit").options.device.falls_back());
  }
  CHECK(loaded("net_af_packet0,iface=x", "exit").error == "");
  CHECK_FALSE(loaded("net_af_packet0,iface=x", "auto").options.device.falls_back());
}

TEST_CASE("a text without quotes is told so") {
  CHECK(load_text("[device]\nport = net_af_packet0,iface=eth1   # the uplink\n").error ==
        "2:9: port = net_af_packet0,iface=eth1: a text is written in quotes: port = \"net_af_packet0,iface=eth1\"");
}

TEST_CASE("what is not TOML is reported with its place") {
  const Loaded l = load_text("[device]\nport = \"unfinished\nmtu = 5\n");
  CHECK(l.failed);
  CHECK(l.error.starts_with("2:"));
  CHECK(l.error.size() > 10);
}

TEST_CASE("a key given twice is an error") { CHECK(load_with("[tcp]\nretries2 = 8\nretries2 = 9\n").failed); }

TEST_CASE("a configuration that leaves the stack nothing to run on is an error") {
  const Loaded l = load_text("[tcp]\nretries2 = 8\n");
  CHECK(l.error ==
        "1:1: nothing for the stack to run on: expected port in [device] and address in [interface], or "
        "loopback = "
        "true in [stack]");
}

TEST_CASE("addresses without a device are fine, IPv6 too") {
  const Loaded l = load_text("[interface]\naddress = [\"10.0.0.1/31\", \"fd00::1/64\", \"10.0.0.7/32\"]\n");
  REQUIRE(l.error == "");
  CHECK(l.options.stack.interface.addresses.size() == 3);
  CHECK(l.options.stack.interface.addresses[1].prefix_length == 64);
}

TEST_CASE("an interface that is shared with the kernel has its addresses, unless others are given") {
  const std::string device = "[device]\nport = \"net_af_xdp0,iface=eth1,share=kernel\"\n";
  CHECK(load_text(device).error == "");
  CHECK(load_text(device).options.stack.interface.from_kernel);
  CHECK(load_text(device + "[interface]\naddress = \"kernel\"\n").options.stack.interface.from_kernel);
  const Loaded own = load_text(device + "[interface]\naddress = \"10.9.0.2/24\"\n");
  CHECK(own.error == "");
  CHECK_FALSE(own.options.stack.interface.from_kernel);
}

TEST_CASE("a device has IPv6 addresses, too, and its gateway may be link-local") {
  CHECK(load_text("[device]\nport = \"net_null0\"\n[interface]\naddress = [\"10.9.0.2/24\", \"fd00::2/64\"]\n"
                  "gateway = [\"10.9.0.1\", \"fe80::1\"]\n")
            .error == "");
}

TEST_CASE("a file that is not there, is a directory or is huge is reported by name") {
  intercept::Options o;
  CHECK(load("/nonexistent/x.toml", o).message ==
        "/nonexistent/x.toml: cannot be read: No such file or directory");
  CHECK(load("/tmp", o).message == "/tmp: cannot be read: Is a directory");
  const TemporaryFile huge("# " + std::string(2 << 20, 'x'));
  CHECK(load(huge.path(), o).message == huge.path() + ": cannot be read: File too large");
}

TEST_CASE("MTCP_CONF names the file, and empty it is as if unset") {
  setenv("MTCP_CONF", "/some/file.toml", 1);
  CHECK(find() == "/some/file.toml");
  setenv("MTCP_CONF", "", 1);
  const bool system_file = access("/etc/mtcp/mtcp.toml", R_OK) == 0;
  CHECK(find() == (system_file ? "/etc/mtcp/mtcp.toml" : ""));
  unsetenv("MTCP_CONF");
  CHECK(find() == (system_file ? "/etc/mtcp/mtcp.toml" : ""));
}

TEST_CASE("no two keys have the same name in one section, and every key says what it does") {
  const auto all = keys();
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(find_key(all[i].section, all[i].name) == &all[i]);
    CHECK(!all[i].doc.empty());
  }
}
