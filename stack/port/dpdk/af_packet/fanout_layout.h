/* What the fanout program and the stacks have in common: a map of one value, which every process of the device maps into its
 * memory and changes without a system call. C for the program (fanout.bpf.c), and valid C++ for packet_fanout.cc. */
#pragma once

#include <linux/types.h>

#include "stack/steering/pointed_flows.h"

/* Half bytes of the longest input of the hash (IPv6 addresses and ports), and entries of the table at most. */
#define MTCP_FANOUT_HALVES 72
#define MTCP_FANOUT_ENTRIES 512

struct mtcp_fanout {
  __u32 queues;    /* how many there are: sockets of the group, in its order; none is taken away again */
  __u32 mask;      /* entries of the table that count, less one */
  __u32 hash[MTCP_FANOUT_HALVES][16]; /* stack/steering/flow_hash: what each half byte of the input adds */
  __u8 queue[MTCP_FANOUT_ENTRIES];    /* where packets of an entry come */
  __u8 flow[MTCP_POINTED_FLOWS];      /* and those of a flow, plus 1; 0: as the table says */
};
