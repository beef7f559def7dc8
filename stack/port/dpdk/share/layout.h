/* What the program on the interface and the stacks have in common: two maps of one array each, which every process of the device maps
 * into its memory and changes without a system call. C for the program (program.bpf.c), and valid C++ for shared_ports.cc. */
#pragma once

#include <linux/types.h>

/* The type by which packet sockets get what the classifier gives to the stack: ETH_P_8021AD, in a tag of a VLAN that no wire has
 * (IEEE 802.1Q reserves it). */
#define MTCP_SHARE_ETHER_TYPE 0x88a8
#define MTCP_SHARE_VLAN 4095

/* Stacks of a device, a bit each (stack/steering/stack_set.hh). */
#define MTCP_SHARE_STACKS 64
/* Addresses of the stack, at most; each has 65,536 entries, 1.5 MB, in the map of ports. */
#define MTCP_SHARE_ADDRESSES 8
#define MTCP_SHARE_PORTS 65536

/* An address as in IPv6, in network byte order; IPv4 mapped (RFC 4291 section 2.5.5.2). */
struct mtcp_share_address {
  __u64 half[2];
};

/* Whose a port of an address is: a bit for each stack, which that stack alone sets, and clears, or who finds it dead. */
struct mtcp_share_port {
  __u64 listeners; /* take new connections */
  __u64 flows;     /* have connections from it, or had some until a short while ago */
  __u64 remotes;   /* with whom: a Bloom filter of these connections' remote endpoints */
};

/* The bits of an endpoint there, three at most; its port is in network byte order. Of other endpoints one in 10,000 has these, too; with
 * eight connections one in 20, with many nearly all. */
static inline __u64 mtcp_share_remote(const struct mtcp_share_address *a, __u16 port) {
  __u64 h = (a->half[0] ^ a->half[1] ^ (__u64)port << 32) * 0x9e3779b97f4a7c15ULL;
  h = (h ^ h >> 32) * 0x9e3779b97f4a7c15ULL;
  return 1ULL << (h >> 58) | 1ULL << (h >> 52 & 63) | 1ULL << (h >> 46 & 63);
}

/* Peers that are answered by the kernel, because the way to them is not over this interface: each has one entry. */
#define MTCP_SHARE_ELSEWHERE 256

static inline __u64 mtcp_share_hash(const struct mtcp_share_address *a) {
  return ((a->half[0] ^ a->half[1]) * 0x9e3779b97f4a7c15ULL) >> 56;
}

struct mtcp_share_state {
  __u32 addresses; /* how many of the following there are: none is taken away again */
  __u32 unused;
  struct mtcp_share_address address[MTCP_SHARE_ADDRESSES];
  __u64 owner[MTCP_SHARE_STACKS]; /* of a stack's bits: its process (claims.hh); 0: nobody */
  struct mtcp_share_address elsewhere[MTCP_SHARE_ELSEWHERE]; /* remote ones; ::, nobody */
  /* A bit for each port number, of whatever address: connections of nobody's wait for a stack that will have their listener. */
  __u64 waiting[MTCP_SHARE_PORTS / 64];
};
