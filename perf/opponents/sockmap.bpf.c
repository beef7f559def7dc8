/* What is written to a socket of this machine's own loopback goes straight into the queue of the socket at the other end, past the
 * kernel's TCP: connections between two programs of the cgroup that this is attached to. */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { IPV4 = 2, CONNECTIONS = 65536 };

/* As its socket sees it; ports in host byte order. */
struct connection {
  __u32 local, remote;
  __u32 local_port, remote_port;
};

struct {
  __uint(type, BPF_MAP_TYPE_SOCKHASH);
  __uint(max_entries, CONNECTIONS);
  __type(key, struct connection);
  __type(value, __u64);
} sockets SEC(".maps");

/* By which way a socket's data goes: always by the same, or it would arrive in another order. */
enum { UNDECIDED, REDIRECTED, BY_TCP };
struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, __u32);
} ways SEC(".maps");

/* Messages by their way. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 3);
  __type(key, __u32);
  __type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 way) {
  __u64 *counter = bpf_map_lookup_elem(&counts, &way);
  if (counter) ++*counter;
}

SEC("sockops")
int mtcp_enter(struct bpf_sock_ops *context) {
  if (context->family != IPV4) return 0;
  if (context->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && context->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) return 0;
  struct connection key = {context->local_ip4, context->remote_ip4, context->local_port, bpf_ntohl(context->remote_port)};
  bpf_sock_hash_update(context, &sockets, &key, BPF_ANY);
  return 0;
}

SEC("sk_msg")
int mtcp_redirect(struct sk_msg_md *message) {
  struct connection peer = {message->remote_ip4, message->local_ip4, bpf_ntohl(message->remote_port), message->local_port};
  struct bpf_sock *own = message->sk;
  __u32 *way = own ? bpf_sk_storage_get(&ways, own, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;
  if (!way) return SK_PASS;
  /* SK_DROP: the other end is not in the map, or no more. */
  const int redirected = *way != BY_TCP && bpf_msg_redirect_hash(message, &sockets, &peer, BPF_F_INGRESS) == SK_PASS;
  if (*way == UNDECIDED) *way = redirected ? REDIRECTED : BY_TCP;
  count(redirected ? REDIRECTED : BY_TCP);
  return SK_PASS;
}

char license_text[] SEC("license") = "BSD";
