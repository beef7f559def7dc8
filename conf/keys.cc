#include "conf/keys.hh"

namespace mtcp::conf {
namespace {

using intercept::LogLevel;
using intercept::OnFailure;
using intercept::Toggle;
using stack::microseconds;
using stack::milliseconds;
using stack::seconds;
using std::chrono::hours;

constexpr std::string_view kToggles[] = {"auto", "on", "off"};  // in the order of intercept::Toggle
constexpr std::string_view kFailures[] = {"auto", "kernel", "exit"};  // as intercept::OnFailure
constexpr std::string_view kPolls[] = {"adaptive", "busy"};
constexpr std::string_view kLevels[] = {"none", "error", "warning", "info",
                                        "debug"};  // as intercept::LogLevel
constexpr std::string_view kCongestionControls[] = {"cubic", "reno", "bbr", "dctcp"};

template <class Words>
std::size_t index_of(const Words& words, std::string_view word) {
  std::size_t i = 0;
  while (i < std::size(words) && words[i] != word) ++i;
  return i;
}

// A field of a struct inside Options, as a captureless function.
#define AT(field) \
  [](Options & o) -> auto& { return o.field; }

constexpr std::uint32_t kMost = 0xffffffff;
constexpr std::uint32_t kMaxBuffer = 0x7fffffff;

const Key kKeys[] = {
    // --- [device]
    {"device", "port", Text{AT(device.port)}, "net_af_packet0,iface=eth1",
     "The device: a DPDK device string or a PCI address. Without one, only connections within a process are "
     "served.\n"
     "  net_af_packet0,iface=NAME           a kernel interface: veth, any NIC\n"
     "  net_af_xdp0,iface=NAME              the same through AF_XDP: the kernel receives nothing there meanwhile\n"
     "  net_af_xdp0,iface=NAME,share=kernel the same, shared: the stack has its own TCP ports, the kernel all else on the same\n"
     "                                      addresses. xdp=native, xdp=generic or xdp=no: how\n"
     "  auto                                that, with the interface of the default route\n"
     "  net_memif0,role=server,socket-abstract=yes,socket=/NAME\n"
     "                                      shared memory to another mtcp process, which has role=client\n"
     "  net_memif0,role=server,socket-abstract=yes,socket=/NAME-{worker}\n"
     "                                      the same for several processes: each has a memif of its own. "
     "{worker} is\n"
     "                                      the lowest number from 0 that no living process has for this "
     "port; there\n"
     "                                      are as many as `queues` says, and who finds none free waits for "
     "one\n"
     "  0000:00:04.0                        a NIC bound to vfio-pci or uio_pci_generic"},
    {"device", "queues", Count{AT(device.queues), 1, 127, true}, "",
     "Queues of the device, which the stacks of all processes that share it divide among them: at most 64, and not\n"
     "necessarily as many as the processes. \"auto\": one per CPU, no more than the device has, and of a network card,\n"
     "where each takes `packets` buffers, 16 at most; with af_packet and the capabilities bpf and perfmon one for each\n"
     "process. With {worker} in `port`: how many processes have a device at a time; must be set, and the same on the other end."},
    {"device", "on_failure",
     Choice{kFailures, [](const Options& o) { return static_cast<std::size_t>(o.device.on_failure); },
            [](Options& o, std::size_t i) { o.device.on_failure = static_cast<OnFailure>(i); }},
     "",
     "When the device can't be opened (no permission, another program has it): \"kernel\": the program runs on the kernel\n"
     "instead, which takes share=kernel in `port`; \"exit\": it ends with status 69. \"auto\": the first where it can be."},
    {"device", "hugepages",
     Choice{kToggles, [](const Options& o) { return static_cast<std::size_t>(o.device.hugepages); },
            [](Options& o, std::size_t i) { o.device.hugepages = static_cast<Toggle>(i); }},
     "",
     "Packet memory in huge pages. \"auto\": if there are enough (sysctl vm.nr_hugepages); \"on\": or not at "
     "all."},
    {"device", "rx_ring", Count{AT(device.rx_ring), 64, 32768}, "",
     "Packets that a receive queue holds before it drops: what net.core.netdev_max_backlog bounds in the "
     "kernel."},
    {"device", "tx_ring", Count{AT(device.tx_ring), 64, 32768}, "",
     "Packets that wait to be sent in the device: the txqueuelen of this device."},
    {"device", "mtu", Count{AT(stack.interface.mtu), 576, 9600}, "", "Largest IP packet, in bytes. On a memif, large ones make bulk transfer a third faster; its ends may differ."},
    {"device", "packets", Count{AT(device.packets), 512, 16777216, true}, "",
     "Packet buffers of each stack, about 2 KiB each, or `mtu` if that is more. They hold what is received and not yet read, and what "
     "is sent\n"
     "and not yet acknowledged. \"auto\": some 150 MB, or what the rings want."},
    {"device", "peer_users", Users{AT(device.peer_users)}, "[33]",
     "A memif's other end must belong to root, to the user of this process, or to one of these (numbers as of id -u); or it must be a\n"
     "program that the same user has started as this one, whatever it runs as by now (nginx's workers). What the two share is their\n"
     "packets and the memory that they lie in. `secret=` in `port`, the same on both ends, can be asked for in addition."},

    // --- [interface]
    {"interface", "address", Addresses{AT(stack.interface.addresses), AT(stack.interface.from_kernel)}, "[\"10.9.0.2/24\"]",
     "Addresses of the stack, each with its prefix length. With net_af_packet they must not be the kernel's "
     "in the\n"
     "same network namespace, or both would answer. \"kernel\": those that the kernel has on the interface, with its\n"
     "routes and its neighbours, as they change; for an interface that is shared with it (share=kernel in `port`),\n"
     "where it is the default."},
    {"interface", "gateway", Gateways{AT(stack.interface.gateways)}, "[\"10.9.0.1\"]",
     "Where packets to other networks go. Must be on a network of `address`; of IPv6 it may be link-local (fe80::1)."},

    // --- [stack]
    {"stack", "poll",
     Choice{kPolls, [](const Options& o) -> std::size_t { return o.poll.busy ? 1 : 0; },
            [](Options& o, std::size_t i) { o.poll.busy = i == 1; }},
     "",
     "\"adaptive\": spin for `spin`, then sleep until the device or the kernel has something. \"busy\": "
     "never sleep."},
    {"stack", "spin", Span{AT(poll.spin), microseconds(0), seconds(10), microseconds(1)}, "",
     "How long a wait looks at the device before it sleeps (as net.core.busy_poll; plain numbers are "
     "microseconds).\nNot at all while more processes share the device than there are CPUs."},
    {"stack", "kernel_interval", Span{AT(poll.kernel_interval), microseconds(1), seconds(1), microseconds(1)},
     "", "How often a wait that spins looks at kernel descriptors (plain numbers are microseconds)."},
    {"stack", "service_thread", Flag{AT(service_thread)}, "",
     "A thread that keeps connections alive while the application computes: ACKs, retransmissions, "
     "keep-alives."},
    {"stack", "stacks", Count{AT(stacks), 1, 64, true}, "",
     "How many stacks a process may have: a thread that listens gets one of its own, with what it accepts and what it\n"
     "connects to, as long as there are fewer. \"auto\": as many as the CPUs that the process may run on. On a device those\n"
     "threads that have a listener each of one port (SO_REUSEPORT), or, over af_packet, serve what another one accepts; one\n"
     "on memif."},
    {"stack", "loopback", Flag{AT(stack.loopback)}, "",
     "127.0.0.0/8 and ::1 belong to the stack: connections within the process do not pass through the "
     "kernel."},

    // --- [tcp]
    {"tcp", "rmem", Sizes{AT(stack.tcp.rmem), 2048, kMaxBuffer}, "",
     "Receive buffer of a socket, in bytes: [min, default, max]."},
    {"tcp", "wmem", Sizes{AT(stack.tcp.wmem), 2048, kMaxBuffer}, "",
     "Send buffer of a socket, in bytes: [min, default, max]."},
    {"tcp", "mem", Levels{AT(stack.tcp.mem), 65536, std::uint64_t{1} << 40}, "",
     "Bytes of packet buffers that a stack may have in use, for what is received and not yet read and what is sent "
     "and not\n"
     "yet acknowledged (net.ipv4.tcp_mem, which counts pages). Above `pressure`, and until it is below `low` again, "
     "each\n"
     "connection is held to a share of what is left; at `high` data out of order is dropped and connections that were\n"
     "closed with data on the way are reset, the largest first. \"auto\", and at most: nearly all of `packets`, half "
     "and\n"
     "three eighths of that."},
    {"tcp", "congestion_control",
     Choice{kCongestionControls,
            [](const Options& o) { return index_of(kCongestionControls, o.stack.tcp.congestion_control); },
            [](Options& o, std::size_t i) { o.stack.tcp.congestion_control = kCongestionControls[i]; }},
     "", "Congestion control of new connections."},
    {"tcp", "slow_start_after_idle", Flag{AT(stack.tcp.slow_start_after_idle)}, "",
     "After an idle time of one RTO the congestion window starts anew (RFC 5681 section 4.1)."},
    {"tcp", "initial_window", Count{AT(stack.tcp.initial_window), 1, 1000}, "",
     "Congestion window at the start, in segments (RFC 6928; the initcwnd of a kernel route)."},
    {"tcp", "no_metrics_save", Flag{AT(stack.tcp.no_metrics_save)}, "",
     "What a connection has learned of a host (its round trip, how much the path reorders) is not kept for the next. Fast Open's\n"
     "cookies are."},
    {"tcp", "no_ssthresh_metrics_save", Flag{AT(stack.tcp.no_ssthresh_metrics_save)}, "", "Of that, ssthresh is not kept."},
    {"tcp", "timestamps", Flag{AT(stack.tcp.timestamps)}, "", "Timestamps and PAWS (RFC 7323)."},
    {"tcp", "window_scaling", Flag{AT(stack.tcp.window_scaling)}, "", "Window scaling (RFC 7323)."},
    {"tcp", "sack", Flag{AT(stack.tcp.sack)}, "", "Selective acknowledgments (RFC 2018)."},
    {"tcp", "dsack", Flag{AT(stack.tcp.dsack)}, "", "Tell the peer of data that came twice (RFC 2883)."},
    {"tcp", "ecn", Count{AT(stack.tcp.ecn), 0, 2}, "",
     "Explicit Congestion Notification (RFC 3168), as net.ipv4.tcp_ecn: 0 never, 1 asked for and accepted, 2 accepted\n"
     "when the peer asks."},
    {"tcp", "ecn_fallback", Flag{AT(stack.tcp.ecn_fallback)}, "",
     "A SYN that asks for ECN and is not answered is sent again without."},
    {"tcp", "fast_open", Count{AT(stack.tcp.fast_open), 0, 0x7ff}, "",
     "TCP Fast Open (RFC 7413), the sum of: 1 for clients, 2 for servers, 4 data with the SYN without a cookie, 512 and\n"
     "taken without, 1024 for all listeners, whether they ask for it (TCP_FASTOPEN) or not. As net.ipv4.tcp_fastopen."},
    {"tcp", "syncookies", Flag{AT(stack.tcp.syncookies)}, "",
     "When max_syn_backlog is reached, answer with SYN cookies instead of dropping."},
    {"tcp", "max_syn_backlog", Count{AT(stack.tcp.max_syn_backlog), 1, 16777216}, "",
     "Handshakes under way, per stack."},
    {"tcp", "abort_on_overflow", Flag{AT(stack.tcp.abort_on_overflow)}, "",
     "A full accept queue answers with RST instead of leaving the peer to try again."},
    {"tcp", "syn_retries", Count{AT(stack.tcp.syn_retries), 1, 127}, "",
     "Retransmissions of a SYN before connect fails, beside those of syn_linear_timeouts."},
    {"tcp", "syn_linear_timeouts", Count{AT(stack.tcp.syn_linear_timeouts), 0, 127}, "",
     "Retransmissions of a SYN a second apart, before the time between them doubles."},
    {"tcp", "synack_retries", Count{AT(stack.tcp.synack_retries), 0, 255}, "",
     "Retransmissions of a SYN-ACK."},
    {"tcp", "retries2", Count{AT(stack.tcp.retries2), 1, 255}, "",
     "Retransmissions of data before a connection times out."},
    {"tcp", "orphan_retries", Count{AT(stack.tcp.orphan_retries), 1, 255}, "",
     "The same for a connection that no descriptor refers to any more."},
    {"tcp", "fin_timeout", Span{AT(stack.tcp.fin_timeout), milliseconds(1), hours(24), seconds(1)}, "",
     "How long a closed connection waits in FIN-WAIT-2 for the peer's FIN, and the length of TIME-WAIT\n"
     "(plain numbers are seconds)."},
    {"tcp", "max_tw_buckets", Count{AT(stack.tcp.max_tw_buckets), 1, 16777216}, "",
     "Connections in TIME-WAIT, per stack; beyond it they are dropped at once."},
    {"tcp", "tw_reuse", Flag{AT(stack.tcp.tw_reuse)}, "",
     "connect may use a port that is in TIME-WAIT, if timestamps make it safe (RFC 6191) ..."},
    {"tcp", "tw_reuse_delay",
     Span{AT(stack.tcp.tw_reuse_delay), milliseconds(1), seconds(60), milliseconds(1)}, "",
     "... this long after the connection entered it (plain numbers are milliseconds)."},
    {"tcp", "rfc1337", Flag{AT(stack.tcp.rfc1337)}, "",
     "A RST does not end TIME-WAIT (RFC 1337). Off, a peer that has been started again can use its ports at once."},
    {"tcp", "max_connections", Count{AT(stack.tcp.max_connections), 1, 16777216}, "",
     "Connections of one stack. Their memory is taken as they come."},
    {"tcp", "ip_local_port_range",
     PortRange{[](Options& o) -> std::uint16_t& { return o.stack.tcp.ip_local_port_first; },
               [](Options& o) -> std::uint16_t& { return o.stack.tcp.ip_local_port_last; }},
     "", "Ports that connect chooses from (net.ipv4.ip_local_port_range)."},
    {"tcp", "keepalive_time", Span{AT(stack.tcp.keepalive_time), seconds(1), hours(24 * 30), seconds(1)}, "",
     "SO_KEEPALIVE: idle time before the first probe (plain numbers are seconds)."},
    {"tcp", "keepalive_intvl", Span{AT(stack.tcp.keepalive_intvl), seconds(1), hours(24), seconds(1)}, "",
     "SO_KEEPALIVE: time between probes (plain numbers are seconds)."},
    {"tcp", "keepalive_probes", Count{AT(stack.tcp.keepalive_probes), 1, 255}, "",
     "SO_KEEPALIVE: unanswered probes that end the connection."},
    {"tcp", "rto_min", Span{AT(stack.tcp.rto_min), milliseconds(1), seconds(120), microseconds(1)}, "",
     "Least retransmission timeout (tcp_rto_min_us: plain numbers are microseconds)."},
    {"tcp", "rto_max", Span{AT(stack.tcp.rto_max), seconds(1), seconds(120), milliseconds(1)}, "",
     "Greatest retransmission timeout (tcp_rto_max_ms: plain numbers are milliseconds)."},
    {"tcp", "delayed_ack",
     Span{AT(stack.tcp.delayed_ack), milliseconds(1), milliseconds(500), milliseconds(1)}, "",
     "Longest time that an ACK waits for company (RFC 9293 section 3.8.6.3 allows 500 ms; plain numbers are\n"
     "milliseconds). Within it the delay follows the time between segments, from 40 ms on."},
    {"tcp", "challenge_ack_limit", Count{AT(stack.tcp.challenge_ack_limit), 1, kMost}, "",
     "Challenge ACKs per second and stack (RFC 5961 section 7); 2147483647 and more: no limit but that of each\n"
     "connection."},
    {"tcp", "invalid_ratelimit",
     Span{AT(stack.tcp.invalid_ratelimit), milliseconds(0), seconds(60), milliseconds(1)}, "",
     "Least time between two ACKs of one connection in answer to segments that can't be right (plain numbers are\n"
     "milliseconds)."},

    // --- [log]
    {"log", "level",
     Choice{kLevels, [](const Options& o) { return static_cast<std::size_t>(o.log_level); },
            [](Options& o, std::size_t i) { o.log_level = static_cast<LogLevel>(i); }},
     "", "What is logged; nothing is ever logged per packet."},
    {"log", "file", Text{AT(log_file)}, "/var/log/mtcp.log", "Where to; without it, to the standard error that the program was started with."},
};

#undef AT

}  // namespace

std::span<const Key> keys() { return kKeys; }

const Key* find_key(std::string_view section, std::string_view name) {
  for (const Key& k : kKeys) {
    if (k.section == section && k.name == name) return &k;
  }
  return nullptr;
}

}  // namespace mtcp::conf
