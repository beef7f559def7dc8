/* How many flows are told apart, by a part of their hash, where their packets come elsewhere than the steering table says
 * (SharedDevice::point_flow). C, because the kernel's program for packet sockets (stack/port/dpdk/af_packet/fanout.bpf.c) has it, too. */
#pragma once

#define MTCP_POINTED_FLOWS 65536
