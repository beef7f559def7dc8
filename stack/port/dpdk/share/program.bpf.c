/* On an interface that the stack shares with the kernel: TCP segments for ports of the stack go to its sockets, and so do
 * ICMP errors about its segments. All else is the kernel's: ARP and neighbour discovery, UDP, echo,
 * tagged frames, other addresses and ports, connections that the kernel itself has from a port which a
 * stack has as well, and those of peers to whom the way is not over this interface.
 *
 * Fragments are the kernel's, too, but for the first one of a segment that is the stack's: put together, that would be a segment which
 * the kernel knows nothing of and answers with a reset. Without its beginning it puts nothing together. The stack drops and counts it.
 *
 * It is compiled twice: for XDP, where the sockets are AF_XDP's, one for each queue; and (MTCP_CLASSIFIER) as a classifier of tc,
 * where they are packet sockets for the Ethernet type that it gives to what is the stack's (layout.h). */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"

#ifdef MTCP_CLASSIFIER
typedef struct __sk_buff packet;
#define load_bytes bpf_skb_load_bytes
#else
typedef struct xdp_md packet;
#define load_bytes bpf_xdp_load_bytes
#endif

/* Only their names matter here: the opener makes the maps (xdp_program.cc). */
#ifndef MTCP_CLASSIFIER
struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __type(key, __u32);
  __type(value, __u32);
} sockets SEC(".maps");
#endif

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __type(key, __u32);
  __type(value, struct mtcp_share_state);
} state SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __type(key, __u32);
  __type(value, struct mtcp_share_port);
} ports SEC(".maps");

/* A flow as our end sees it. Addresses as in the layout, ports in network byte order. */
struct flow {
  struct mtcp_share_address local, remote;
  __be16 local_port, remote_port;
};

/* States of struct bpf_sock. */
enum { TIME_WAIT = 6, LISTEN = 10 };

/* RFC 792 and RFC 4443; the kernel's headers of these want libc's. */
struct icmp_header {
  __u8 type, code;
  __u16 checksum;
  __u32 rest;
};
enum { UNREACHABLE = 3, SOURCE_QUENCH = 4, TIME_EXCEEDED = 11, PARAMETER_PROBLEM = 12 };
enum { FIRST_NO_ERROR_V6 = 128 };

static __always_inline void map_v4(struct mtcp_share_address *to, __be32 address) {
  __u32 half[4] = {0, 0, bpf_htonl(0xffff), address};
  __builtin_memcpy(to, half, sizeof half);
}

static __always_inline void take_v6(struct mtcp_share_address *to, const struct in6_addr *address) {
  __builtin_memcpy(to, address, sizeof *to);
}

/* Null if it is no address of the stack. */
static __always_inline const struct mtcp_share_port *port_of(const struct flow *flow) {
  const __u32 zero = 0;
  const struct mtcp_share_state *now = bpf_map_lookup_elem(&state, &zero);
  if (!now) return 0;
#pragma clang loop unroll(full)
  for (__u32 i = 0; i < MTCP_SHARE_ADDRESSES; ++i) {
    if (i >= now->addresses) return 0;
    if (now->address[i].half[0] != flow->local.half[0] || now->address[i].half[1] != flow->local.half[1]) continue;
    const __u32 key = i * MTCP_SHARE_PORTS + bpf_ntohs(flow->local_port);
    return bpf_map_lookup_elem(&ports, &key);
  }
  return 0;
}

/* Whether the kernel has this very connection: it was there before the stack had the port, or has the port since. */
static __always_inline int is_kernels(packet *context, const struct flow *flow, int v4) {
  struct bpf_sock_tuple tuple;
  __u32 size;
  if (v4) {
    __u32 half[4];
    __builtin_memcpy(half, &flow->remote, sizeof half);
    tuple.ipv4.saddr = half[3];
    __builtin_memcpy(half, &flow->local, sizeof half);
    tuple.ipv4.daddr = half[3];
    tuple.ipv4.sport = flow->remote_port;
    tuple.ipv4.dport = flow->local_port;
    size = sizeof tuple.ipv4;
  } else {
    __builtin_memcpy(tuple.ipv6.saddr, &flow->remote, sizeof tuple.ipv6.saddr);
    __builtin_memcpy(tuple.ipv6.daddr, &flow->local, sizeof tuple.ipv6.daddr);
    tuple.ipv6.sport = flow->remote_port;
    tuple.ipv6.dport = flow->local_port;
    size = sizeof tuple.ipv6;
  }
  struct bpf_sock *found = bpf_skc_lookup_tcp(context, &tuple, size, BPF_F_CURRENT_NETNS, 0);
  if (!found) return 0;
  /* A new connection of the stack's may have followed one in TIME-WAIT. */
  const int its = found->state != LISTEN && found->state != TIME_WAIT;
  bpf_sk_release(found);
  return its;
}

/* Whether the way back to who opens a connection is not over this interface. */
static __always_inline int is_elsewhere(const struct mtcp_share_address *remote) {
  const __u32 zero = 0;
  const struct mtcp_share_state *now = bpf_map_lookup_elem(&state, &zero);
  if (!now) return 0;
  const struct mtcp_share_address *there = &now->elsewhere[mtcp_share_hash(remote)];
  return there->half[0] == remote->half[0] && there->half[1] == remote->half[1];
}

/* The following say whether what begins at `at` in the packet is the stack's. What has no fixed place is copied: to add a
 * number to a pointer into the packet takes CAP_PERFMON. */

struct tcp_start {
  __be16 source, dest;
  __be32 seq, ack;
  __be16 flags, window, checksum, urgent;
};
enum { SYN = 0x02, ACK = 0x10 };
enum { FIRST_FRAGMENT = 8 };

/* Connections to this port wait for the next stack that has their listener. What comes for them meanwhile the kernel, which may listen
 * as well, would answer with a reset. */
static __always_inline int is_waited_at(__be16 local_port) {
  const __u32 zero = 0, port = bpf_ntohs(local_port);
  const struct mtcp_share_state *now = bpf_map_lookup_elem(&state, &zero);
  return now && (now->waiting[port / 64] >> (port % 64) & 1);
}

/* Of a port that only connections have, the kernel may have others, which it knows no socket of: those that NAT has given this port. */
static __always_inline int is_with(const struct mtcp_share_port *port, const struct flow *flow) {
  const __u64 bits = mtcp_share_remote(&flow->remote, flow->remote_port);
  return port->flows && (port->remotes & bits) == bits;
}

static __always_inline int is_flow(packet *context, struct flow *flow, const struct mtcp_share_port *port, int v4) {
  return port && (port->listeners || is_with(port, flow) || is_waited_at(flow->local_port)) && !is_kernels(context, flow, v4);
}

/* `fragmented`: the first fragment. A connection that is opened by fragments is the kernel's, which listens as well. */
static __always_inline int segment(packet *context, struct flow *flow, __u32 at, int v4, int fragmented) {
  struct tcp_start tcp = {};
  /* Of a first fragment there are eight bytes at least, and so the ports. */
  if (load_bytes(context, at, &tcp, sizeof tcp) != 0 && (!fragmented || load_bytes(context, at, &tcp, FIRST_FRAGMENT) != 0)) return 0;
  flow->local_port = tcp.dest;
  flow->remote_port = tcp.source;
  const struct mtcp_share_port *port = port_of(flow);
  if (port && (bpf_ntohs(tcp.flags) & (SYN | ACK)) == SYN)
    return port->listeners != 0 && !fragmented && !is_elsewhere(&flow->remote);
  return is_flow(context, flow, port, v4);
}

/* About a segment of ours, the beginning of which it carries: what it came from is our end. */
static __always_inline int complaint(packet *context, struct flow *flow, __u32 at, int v4) {
  __be16 tcp_ports[2];
  if (load_bytes(context, at, tcp_ports, sizeof tcp_ports) != 0) return 0;
  flow->local_port = tcp_ports[0];
  flow->remote_port = tcp_ports[1];
  return is_flow(context, flow, port_of(flow), v4);
}

static __always_inline int ipv4(packet *context, __u32 at) {
  struct flow flow;
  struct iphdr ip;
  if (load_bytes(context, at, &ip, sizeof ip) != 0 || ip.ihl < 5 || (ip.frag_off & bpf_htons(0x1fff))) return 0;
  at += ip.ihl * 4;
  const int fragmented = (ip.frag_off & bpf_htons(0x2000)) != 0;
  if (ip.protocol == IPPROTO_TCP) {
    map_v4(&flow.local, ip.daddr);
    map_v4(&flow.remote, ip.saddr);
    return segment(context, &flow, at, 1, fragmented);
  }
  struct icmp_header icmp;
  struct iphdr sent;
  if (fragmented || ip.protocol != IPPROTO_ICMP || load_bytes(context, at, &icmp, sizeof icmp) != 0) return 0;
  if (icmp.type != UNREACHABLE && icmp.type != TIME_EXCEEDED && icmp.type != PARAMETER_PROBLEM && icmp.type != SOURCE_QUENCH)
    return 0;
  at += sizeof icmp;
  if (load_bytes(context, at, &sent, sizeof sent) != 0 || sent.protocol != IPPROTO_TCP || sent.ihl < 5) return 0;
  map_v4(&flow.local, sent.saddr);
  map_v4(&flow.remote, sent.daddr);
  return complaint(context, &flow, at + sent.ihl * 4, 1);
}

/* RFC 8200 section 4.1: each of them once, and options for the destination twice. */
enum { EXTENSIONS = 5 };
enum { FRAGMENT_OFFSET = 0xfff8, MORE_FRAGMENTS = 1 };

struct extension {
  __u8 next, length;
  __be16 fragment; /* of a fragment header */
};

/* Steps over extension headers: `next` and `at` are of what is behind them. False if it is a fragment other than the first. */
static __always_inline int step_over_extensions(packet *context, __u8 *next, __u32 *at, int *fragmented) {
#pragma clang loop unroll(full)
  for (int i = 0; i < EXTENSIONS; ++i) {
    const int fragment = *next == IPPROTO_FRAGMENT;
    struct extension header;
    if (*next != IPPROTO_HOPOPTS && *next != IPPROTO_ROUTING && *next != IPPROTO_DSTOPTS && !fragment) return 1;
    if (load_bytes(context, *at, &header, sizeof header) != 0) return 0;
    *next = header.next;
    *at += fragment ? 8 : (header.length + 1) * 8;
    if (!fragment) continue;
    if (header.fragment & bpf_htons(FRAGMENT_OFFSET)) return 0;
    *fragmented = (header.fragment & bpf_htons(MORE_FRAGMENTS)) != 0;
  }
  return 1;
}

static __always_inline int ipv6(packet *context, __u32 at) {
  struct flow flow;
  struct ipv6hdr ip;
  int fragmented = 0;
  if (load_bytes(context, at, &ip, sizeof ip) != 0) return 0;
  at += sizeof ip;
  __u8 next = ip.nexthdr;
  if (next != IPPROTO_TCP && next != IPPROTO_ICMPV6 && !step_over_extensions(context, &next, &at, &fragmented)) return 0;
  if (next == IPPROTO_TCP) {
    take_v6(&flow.local, &ip.daddr);
    take_v6(&flow.remote, &ip.saddr);
    return segment(context, &flow, at, 0, fragmented);
  }
  struct icmp_header icmp;
  struct ipv6hdr sent;
  if (next != IPPROTO_ICMPV6 || fragmented || load_bytes(context, at, &icmp, sizeof icmp) != 0 || icmp.type >= FIRST_NO_ERROR_V6)
    return 0;
  at += sizeof icmp;
  if (load_bytes(context, at, &sent, sizeof sent) != 0 || sent.nexthdr != IPPROTO_TCP) return 0;
  take_v6(&flow.local, &sent.saddr);
  take_v6(&flow.remote, &sent.daddr);
  return complaint(context, &flow, at + sizeof sent, 0);
}

static __always_inline int takes(packet *context, __be16 type, __u32 at) {
  if (type == bpf_htons(ETH_P_IP)) return ipv4(context, at);
  return type == bpf_htons(ETH_P_IPV6) && ipv6(context, at);
}

#ifdef MTCP_CLASSIFIER

/* TCX_NEXT, for other programs and the kernel; TCX_PASS, past other programs; TCX_DROP. */
enum { NEXT = -1, PASS = 0, DROP = 2 };
enum { TO_THIS_HOST = 0 };

/* The kernel has no use for a frame with the type that a tag gives it, but for the sockets that are bound to this type. A tag that is
 * pushed lies beside the frame, until a second one is; then it is in the frame, which has its type. The kernel drops the second one. */
SEC("tc")
int mtcp_share(packet *context) {
  if (context->pkt_type != TO_THIS_HOST || (context->vlan_present && (context->vlan_tci & 0xfff))) return NEXT;
  if (!takes(context, (__be16)context->protocol, sizeof(struct ethhdr))) return NEXT;
  if (context->vlan_present && bpf_skb_vlan_pop(context) != 0) return DROP;
  for (int i = 0; i < 2; ++i)
    if (bpf_skb_vlan_push(context, bpf_htons(MTCP_SHARE_ETHER_TYPE), MTCP_SHARE_VLAN) != 0) return DROP;
  return PASS;
}

#else

/* A frame with a priority tag is one without (IEEE 802.1Q: VLAN 0 is none), which the stack knows nothing of. */
struct tag {
  __be16 control, type;
};

static __always_inline int without_tag(struct xdp_md *context) {
  char *data = (void *)(long)context->data;
  __u32 addresses[3];
  if ((void *)(data + sizeof addresses + sizeof(struct tag)) > (void *)(long)context->data_end) return 0;
  __builtin_memcpy(addresses, data, sizeof addresses);
  __builtin_memcpy(data + sizeof(struct tag), addresses, sizeof addresses);
  return bpf_xdp_adjust_head(context, sizeof(struct tag)) == 0;
}

SEC("xdp")
int mtcp_share(struct xdp_md *context) {
  void *end = (void *)(long)context->data_end;
  const struct ethhdr *ethernet = (void *)(long)context->data;
  if ((void *)(ethernet + 1) > end) return XDP_PASS;
  __be16 type = ethernet->h_proto;
  const int tagged = type == bpf_htons(ETH_P_8021Q);
  if (tagged) {
    const struct tag *tag = (const void *)(ethernet + 1);
    if ((void *)(tag + 1) > end || (tag->control & bpf_htons(0xfff))) return XDP_PASS;
    type = tag->type;
  }
  if (!takes(context, type, sizeof *ethernet + (tagged ? sizeof(struct tag) : 0)) || (tagged && !without_tag(context))) return XDP_PASS;
  return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
}

#endif
