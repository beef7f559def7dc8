/* Which packet socket of an interface a frame comes on (PACKET_FANOUT_EBPF): that of the stack which the steering table names
 * for the segment's flow. Everything else comes on the first. Whatever is wrong here costs a copy to the right stack, no more. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "fanout_layout.h"

/* Only its name matters here: the opener makes the map (packet_fanout.cc). */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __type(key, __u32);
  __type(value, struct mtcp_fanout);
} fanout SEC(".maps");

/* Toeplitz, half a byte at a time. Not unrolled: what the compiler makes of that does not fit onto the stack. */
static __always_inline __u32 hash_of(const struct mtcp_fanout *f, const __u8 *input, __u32 bytes) {
  __u32 sum = 0;
#pragma clang loop unroll(disable)
  for (__u32 i = 0; i < bytes; ++i) sum ^= f->hash[2 * i][input[i] >> 4] ^ f->hash[2 * i + 1][input[i] & 15];
  return sum;
}

SEC("socket")
int mtcp_fanout(struct __sk_buff *frame) {
  const __u32 zero = 0;
  const struct mtcp_fanout *f = bpf_map_lookup_elem(&fanout, &zero);
  if (!f) return 0;
  __u8 input[36];
  __u32 hash, at = 0;
  __be16 type = frame->protocol;
  /* On an interface that is shared with the kernel a tag is in front (share/program.bpf.c). */
  if (type == bpf_htons(ETH_P_8021AD)) {
    if (bpf_skb_load_bytes_relative(frame, 2, &type, sizeof type, BPF_HDR_START_NET) != 0) return 0;
    at = 4;
  }
  if (type == bpf_htons(ETH_P_IP)) {
    struct iphdr ip;
    if (bpf_skb_load_bytes_relative(frame, at, &ip, sizeof ip, BPF_HDR_START_NET) != 0) return 0;
    /* A later fragment has no ports. */
    if (ip.protocol != IPPROTO_TCP || ip.ihl < 5 || (ip.frag_off & bpf_htons(0x1fff)) != 0) return 0;
    __builtin_memcpy(input, &ip.saddr, 8);
    if (bpf_skb_load_bytes_relative(frame, at + ip.ihl * 4, input + 8, 4, BPF_HDR_START_NET) != 0) return 0;
    hash = hash_of(f, input, 12);
  } else if (type == bpf_htons(ETH_P_IPV6)) {
    struct ipv6hdr ip;
    if (bpf_skb_load_bytes_relative(frame, at, &ip, sizeof ip, BPF_HDR_START_NET) != 0 || ip.nexthdr != IPPROTO_TCP) return 0;
    __builtin_memcpy(input, &ip.saddr, 32);
    if (bpf_skb_load_bytes_relative(frame, at + sizeof ip, input + 32, 4, BPF_HDR_START_NET) != 0) return 0;
    hash = hash_of(f, input, 36);
  } else {
    return 0;
  }
  const __u8 own = f->flow[hash & (MTCP_POINTED_FLOWS - 1)];
  if (own) return own - 1;
  return f->queue[hash & f->mask & (MTCP_FANOUT_ENTRIES - 1)];
}
