/* On an interface that is the stack's alone: every frame goes to the AF_XDP socket of its queue; where there is none, to the kernel. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Only its name matters here: the opener makes the map (xdp_program.cc). */
struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __type(key, __u32);
  __type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int mtcp_redirect(struct xdp_md *frame) { return bpf_redirect_map(&sockets, frame->rx_queue_index, XDP_PASS); }
