#include "scripts/dump/arguments.hh"

#include <getopt.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <string.h>

#include <bit>
#include <charconv>

namespace mtcp::dump {
namespace {

constexpr const char* kUsage = "usage: mtcp-dump [-i PID|all] [-w FILE|-] [-c COUNT] [-s SNAPLEN] [-B KIB] [EXPRESSION]\n";
constexpr const char* kHelp =
    "Writes the packets of processes on mtcp as pcapng: tcpdump for what the kernel does not see.\n\n"
    "  -i PID|all   of this process (for nginx: a worker); default: all\n"
    "  -w FILE      where to; default: -, the standard output: mtcp-dump | tcpdump -r -\n"
    "  -c COUNT     ends after so many packets\n"
    "  -s SNAPLEN   of each packet so many bytes at most; default: 262144\n"
    "  -B KIB       of the buffer that each stack gets; default: 4096\n"
    "  EXPRESSION   which packets, as in pcap-filter(7)\n"
    "  --version, --help\n";

template <typename T>
bool parse_number(const char* text, T least, T most, T& out) {
  const char* end = text + strlen(text);
  const auto [rest, error] = std::from_chars(text, end, out);
  return error == std::errc() && rest == end && out >= least && out <= most;
}

bool complain(const char* what, const char* value) {
  fprintf(stderr, "mtcp-dump: %s: %s\n%s", what, value, kUsage);
  return false;
}

bool parse_option(int option, const char* value, Arguments& out) {
  switch (option) {
    case 'i':
      if (strcmp(value, "all") == 0) out.pid = 0;
      else if (!parse_number<pid_t>(value, 1, INT32_MAX, out.pid)) return complain("-i wants a process's number, or all", value);
      return true;
    case 'w':
      out.file = value;
      return true;
    case 'c':
      return parse_number<std::uint64_t>(value, 1, UINT64_MAX, out.count) || complain("-c wants a number of packets", value);
    case 's':
      if (!parse_number<std::uint32_t>(value, 0, 262144, out.wanted.snap_length)) return complain("-s wants up to 262144 bytes", value);
      if (out.wanted.snap_length == 0) out.wanted.snap_length = Wanted().snap_length;  // as tcpdump
      return true;
    case 'B': {
      std::uint32_t kib = 0;
      constexpr std::uint32_t kLeast = stack::kLeastCaptureRing >> 10, kMost = stack::kMostCaptureRing >> 10;
      if (!parse_number(value, kLeast, kMost, kib)) return complain("-B wants 256 to 65536 KiB", value);
      out.wanted.ring_size = std::bit_ceil(kib << 10);
      return true;
    }
    default:
      fputs(kUsage, stderr);
      return false;
  }
}

bool compile(Wanted& wanted) {
  if (wanted.filter.empty()) return true;
  pcap_t* handle = pcap_open_dead(DLT_EN10MB, static_cast<int>(wanted.snap_length));
  bpf_program program{};
  const bool good = handle != nullptr && pcap_compile(handle, &program, wanted.filter.c_str(), 1, PCAP_NETMASK_UNKNOWN) == 0;
  if (!good) fprintf(stderr, "mtcp-dump: %s: %s\n", wanted.filter.c_str(), handle != nullptr ? pcap_geterr(handle) : "no memory");
  for (unsigned i = 0; good && i < program.bf_len; ++i) {
    const bpf_insn& b = program.bf_insns[i];
    wanted.program.push_back({b.code, b.jt, b.jf, b.k});
  }
  if (good) pcap_freecode(&program);
  if (handle != nullptr) pcap_close(handle);
  if (!good || wanted.program.size() <= stack::PacketFilter::kMost) return good;
  fprintf(stderr, "mtcp-dump: the filter has %zu instructions; %zu are allowed\n", wanted.program.size(), stack::PacketFilter::kMost);
  return false;
}

}  // namespace

std::optional<Arguments> parse_arguments(int count, char** words, int& status) {
  static const option kLong[] = {{"help", no_argument, nullptr, 'h'}, {"version", no_argument, nullptr, 'V'}, {}};
  Arguments out;
  status = 2;
  for (int option; (option = getopt_long(count, words, "i:w:c:s:B:h", kLong, nullptr)) != -1;) {
    if (option == 'h' || option == 'V') {
      status = 0;
      if (option == 'h') printf("%s\n%s", kUsage, kHelp);
      else printf("%s, %s\n", MTCP_VERSION, pcap_lib_version());
      return std::nullopt;
    }
    if (!parse_option(option, optarg, out)) return std::nullopt;
  }
  for (int i = optind; i < count; ++i) out.wanted.filter += (i == optind ? "" : " ") + std::string(words[i]);
  status = 1;
  if (!compile(out.wanted)) return std::nullopt;
  return out;
}

}  // namespace mtcp::dump
