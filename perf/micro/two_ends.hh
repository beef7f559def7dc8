// Two Workers in one thread, a client and a server, over a wire of memory: without device, descriptors or libc.
#pragma once

#include "perf/micro/memory_wire.hh"
#include "stack/packet/heap_pool.hh"
#include "stack/worker.hh"

namespace mtcp::perf {

using stack::Connection;
using stack::SocketBase;

inline constexpr std::uint16_t kPort = 9000;
inline constexpr std::size_t kMessage = 64;
inline const stack::IpAddress kServer = stack::IpAddress::v4(10, 0, 0, 1),
                       kClient = stack::IpAddress::v4(10, 0, 0, 2);

inline stack::Options options_for(const stack::IpAddress& address) {
  stack::Options o;
  o.interface.addresses.push_back({address, 96 + 24});
  o.tcp.ip_local_port_first = 1024;
  o.tcp.ip_local_port_last = 65535;
  o.tcp.max_connections = 65536;
  return o;
}

struct End {
  End(stack::PacketPool& pool, const stack::IpAddress& address, std::uint8_t number, stack::Time now)
      : options(options_for(address)),
        port(pool, number),
        worker(options, &port, pool, stats, stack::Secrets{.key = {number, 2, 3, 4}}, now) {}
  stack::Options options;
  MemoryPort port;
  stack::Stats stats;
  stack::Worker worker;
};

struct TwoEnds {
  explicit TwoEnds(stack::Time now) : server(pool, kServer, 1, now), client(pool, kClient, 2, now) {
    server.port.join(client.port);
  }
  stack::HeapPool pool{1U << 18};
  End server, client;
  stack::Listener* listener = nullptr;
  std::uint64_t failed = 0;
  int marker = 0;  // what `user` points to: the application has the socket

  bool listen(std::uint32_t backlog = 65535) {
    stack::Worker::ListenOptions o;
    o.backlog = backlog;
    auto result = server.worker.listen({kServer, kPort}, o);
    if (!result) return false;
    listener = *result;
    listener->user = &marker;
    return true;
  }
  Connection* connect(stack::Time t, std::uint16_t port = kPort) {
    auto result = client.worker.connect({stack::IpAddress::any_v4(), 0}, {kServer, port}, {}, t);
    if (!result) return nullptr;
    (*result)->user = &marker;
    return *result;
  }
  Connection* accept() {
    Connection* c = server.worker.accept(*listener);
    if (c != nullptr) c->user = &marker;
    return c;
  }
};

}  // namespace mtcp::perf
