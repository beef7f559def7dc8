/* On an interface whose packets the stack gets by packet sockets, which have copies: drops what comes for the stack's addresses (IPv4, without a
 * tag), so that the kernel does not forward or redirect it. Packet sockets for all protocols are given a frame before it comes here. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Only its name matters here: the opener makes the map (xdp_program.cc). */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __type(key, __be32);
  __type(value, __u32);
} addresses SEC(".maps");

enum { NEXT = -1, DROP = 2 }; /* TCX_NEXT and TCX_DROP, of Linux 6.6 */

SEC("tc")
int mtcp_guard(struct __sk_buff *frame) {
  __be32 to;
  if (frame->protocol != bpf_htons(ETH_P_IP) || frame->vlan_present) return NEXT;
  if (bpf_skb_load_bytes(frame, ETH_HLEN + __builtin_offsetof(struct iphdr, daddr), &to, sizeof to) != 0) return NEXT;
  return bpf_map_lookup_elem(&addresses, &to) ? DROP : NEXT;
}
