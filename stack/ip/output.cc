// Packets on their way out: checksums, IP headers, and then the resolver or the loopback wire.
#include <algorithm>

#include "stack/ip/network_impl.hh"
#include "stack/wire/ipv6.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::stack {
namespace {

// A TCP header is 20 to 60 bytes, in steps of four: not worth a call.
std::uint64_t sum_of_header(const std::byte* p, std::size_t n) {
  std::uint64_t sum = 0;
  for (const std::byte* end = p + (n & ~std::size_t{7}); p != end; p += 8) {
    std::uint64_t words;
    std::memcpy(&words, p, sizeof words);
    sum = add_with_carry(sum, words);
  }
  if ((n & 4) == 0) return fold_once(sum);
  std::uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return fold_once(sum) + word;
}

constexpr std::uint8_t kUsualTtl = 64;

// Don't-fragment: what is the same in all our headers.
// Identification is 0 (RFC 6864 section 4.1: it means nothing where fragmentation is forbidden, and a counter
// would tell how much we send).
constexpr std::uint64_t kSameInAll = sum_of_field(ipv4_detail::kDontFragment);

// In front of the segment in `p`.
void put_ipv4_header(Packet& p, std::uint64_t sum_of_addresses, const IpAddress& source,
                     const IpAddress& destination) {
  std::byte* at = p.push(kIpv4Header);
  const auto total = static_cast<std::uint16_t>(p.len);
  const auto version_and_tos = static_cast<std::uint16_t>(0x4500 | p.tos);
  const auto ttl_and_protocol =
      static_cast<std::uint16_t>((p.ttl != 0 ? p.ttl : kUsualTtl) << 8 | kProtocolTcp);
  store_be(at, std::uint32_t{version_and_tos} << 16 | total);
  store_be(at + 4, std::uint32_t{ipv4_detail::kDontFragment});
  store_be(at + 8, std::uint32_t{ttl_and_protocol} << 16);
  store_checksum(at + 10, kSameInAll + sum_of_field(version_and_tos) + sum_of_field(ttl_and_protocol) +
                              sum_of_field(total) + sum_of_addresses);
  std::memcpy(at + 12, &source.bytes[12], 4);
  std::memcpy(at + 16, &destination.bytes[12], 4);
}

std::uint64_t sum_of_segment(const Packet& p) {
  if ((p.flags & kPayloadSum) == 0 || p.payload_len == 0) return partial_sum(p.data, p.len);
  const std::size_t header = p.len - p.payload_len;
  assert(p.data + header == p.buf + p.payload_offset);
  return sum_of_header(p.data, header) + p.payload_sum;
}

}  // namespace

// The TCP checksum, or what a device that fills it in wants to find there. Returns the sum of the addresses.
inline std::uint64_t Network::Impl::fill_checksum(Packet& p, const IpAddress& source, const IpAddress& destination,
                                                  bool v4) {
  const std::uint64_t addresses = sum_of_address(source, v4) + sum_of_address(destination, v4);
  const std::uint64_t sum =
      addresses + sum_of_field(kProtocolTcp) + sum_of_field(static_cast<std::uint16_t>(p.len));
  std::byte* checksum = p.data + kTcpChecksumOffset;
  std::memset(checksum, 0, 2);
  if (offload) {
    // The device adds the segment to the sum of the pseudo-header that it finds in the field.
    p.flags = static_cast<std::uint16_t>(p.flags | kTxL4Offload);
    store_checksum(checksum, ~fold_sum(sum) & 0xffff);
  } else {
    store_checksum(checksum, sum + sum_of_segment(p));
  }
  return addresses;
}

void Network::Impl::output_tcp(Packet* p, const IpAddress& source, const IpAddress& destination,
                               const Path& path, TxPriority priority, Time now) {
  assert(p->len >= kTcpHeader && p->len + kIpv6Header <= UINT16_MAX);
  if (!path.plain) return output_tcp_otherwise(p, source, destination, path, priority, now);
  const std::uint64_t addresses = fill_checksum(*p, source, destination, true);
  put_ipv4_header(*p, addresses, source, destination);
  resolver.send(p, path.next_hop(destination), priority, now);
}

// To an address of ours, by IPv6, or nowhere.
void Network::Impl::output_tcp_otherwise(Packet* p, const IpAddress& source, const IpAddress& destination,
                                         const Path& path, TxPriority priority, Time now) {
  if (path.local) return output_tcp_locally(p, source, destination);
  if (path.broken) return link.drop(p, Counter::no_route);
  (void)fill_checksum(*p, source, destination, false);
  const auto length = static_cast<std::uint16_t>(p->len);
  write_ipv6(p->push(kIpv6Header), {.source = source,
                                    .destination = destination,
                                    .payload_length = length,
                                    .next_header = kProtocolTcp,
                                    .traffic_class = p->tos,
                                    .hop_limit = p->ttl != 0 ? p->ttl : kUsualTtl});
  resolver.send(p, path.next_hop(destination), priority, now);
}

void Network::Impl::output_tcp_locally(Packet* p, const IpAddress& source, const IpAddress& destination) {
  if ((p->flags & kKeep) != 0) {
    p = link.copy(*p);
    if (p == nullptr) return;
  }
  if (destination.is_v4()) {
    const std::uint64_t addresses = sum_of_address(source, true) + sum_of_address(destination, true);
    put_ipv4_header(*p, addresses, source, destination);
  } else {
    const auto length = static_cast<std::uint16_t>(p->len);
    write_ipv6(p->push(kIpv6Header), {.source = source,
                                      .destination = destination,
                                      .payload_length = length,
                                      .next_header = kProtocolTcp,
                                      .traffic_class = p->tos});
  }
  put_on_loopback(p);
}

void Network::Impl::put_on_loopback(Packet* p) {
  if (loopback_count == loopback_bound) return link.drop(p, Counter::loopback_full);
  link.stats.add(Counter::loopback_packets);
  // Arrives as a received packet would: no marks of its sender.
  p->flags = 0;
  p->marks = 0;
  loopback.push_back(p);
  ++loopback_count;
}

// Anything but TCP: the way is looked up.
void Network::Impl::output_ipv4(Packet* p, const Ipv4Header& header, Time now) {
  const IpAddress destination = IpAddress::v4(header.destination);
  const auto path = routes.path(destination, IpAddress::v4(header.source));
  if (!path) return link.drop(p, Counter::no_route);
  write_ipv4(p->push(kIpv4Header), header);
  if ((*path)->local) return put_on_loopback(p);
  resolver.send(p, (*path)->next_hop(destination), TxPriority::control, now);
}

}  // namespace mtcp::stack
