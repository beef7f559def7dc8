// What it costs that several stacks share a card: one client and N servers in one thread, short connections with 64
// bytes there and back. Run under callgrind it says how many instructions a connection takes, which should not
// depend on N:
//   steering_bench STACKS [rss|spread [CONNECTIONS [STRAYS]]]
// rss: the card delivers by the stacks' own table; spread: by another hash, so that most frames must be passed on.
// STRAYS: after that so many ACKs of flows that nobody knows, 64 at a time.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "perf/micro/memory_card.hh"
#include "perf/micro/two_ends.hh"
#include "perf/number.hh"
#include "stack/steering/steering_port.hh"
#include "stack/wire/ethernet.hh"
#include "stack/wire/ipv4.hh"
#include "stack/wire/tcp_header.hh"

namespace mtcp::perf {
namespace {

constexpr unsigned kConcurrency = 256;

class Server {
 public:
  Server(MemoryCard& card, stack::Time t)
      : options_(options_for(kServer)),
        port_(stack::SteeringPort::join(card)),
        worker_(options_, port_.get(), port_->pool(), stats_, stack::Secrets{.key = card.control().secrets()}, t) {
    stack::Worker::ListenOptions o;
    o.backlog = 65535;
    listener_ = *worker_.listen({kServer, kPort}, o);
    listener_->user = this;
    port_->set_serving(true);
  }
  void turn(stack::Time t) {
    worker_.poll(t);
    while (SocketBase* s = worker_.next_event()) {
      s->edges = 0;
      if (s->kind == SocketBase::Kind::connection) {
        answer(static_cast<Connection&>(*s), t);
        continue;
      }
      while (Connection* c = worker_.accept(*listener_)) {
        c->user = this;
        ++served_;
        if (worker_.readiness(*c).readable) answer(*c, t);
      }
    }
    worker_.flush(t);
  }
  [[nodiscard]] std::uint64_t served() const { return served_; }
  [[nodiscard]] const stack::SteeringPort::Traffic& traffic() const { return port_->traffic(); }

 private:
  void answer(Connection& c, stack::Time t) {
    std::array<std::byte, kMessage> buffer;
    const iovec v{buffer.data(), buffer.size()};
    const auto got = worker_.receive(c, {&v, 1}, {}, t);
    if (!got && got.error() == stack::Errc::would_block) return;
    if (got && *got == kMessage) (void)worker_.send(c, {&v, 1}, false, t);
    worker_.close(c, t);
  }

  stack::Options options_;
  stack::Stats stats_;
  std::unique_ptr<stack::SteeringPort> port_;
  stack::Worker worker_;
  stack::Listener* listener_ = nullptr;
  std::uint64_t served_ = 0;
};

class Client {
 public:
  Client(MemoryCard& card, stack::Time t)
      : options_(options_for(kClient)),
        worker_(options_, &card.far_end(), card.far_end().pool(), stats_, stack::Secrets{.key = {5, 6, 7, 8}}, t) {}
  void turn(stack::Time t) {
    worker_.poll(t);
    while (SocketBase* s = worker_.next_event()) {
      s->edges = 0;
      step(static_cast<Connection&>(*s), t);
    }
    while (active_ < kConcurrency) {
      auto c = worker_.connect({stack::IpAddress::any_v4(), 0}, {kServer, kPort}, {}, t);
      if (!c) break;
      (*c)->user = this;
      ++active_;
    }
    worker_.flush(t);
  }
  [[nodiscard]] std::uint64_t done() const { return done_; }
  [[nodiscard]] std::uint64_t failed() const { return failed_; }

 private:
  void step(Connection& c, stack::Time t) {
    std::array<std::byte, kMessage> buffer{};
    const iovec v{buffer.data(), buffer.size()};
    const auto ready = worker_.readiness(c);
    if (!ready.error && !ready.readable) {
      if (ready.writable && c.bytes_acked == 0 && c.hot.snd_queued == 0) (void)worker_.send(c, {&v, 1}, false, t);
      return;
    }
    for (;;) {
      const auto got = worker_.receive(c, {&v, 1}, {}, t);
      if (!got && got.error() == stack::Errc::would_block) return;
      if (!got || *got == 0) break;
    }
    ready.error ? ++failed_ : ++done_;
    worker_.close(c, t);
    --active_;
  }

  stack::Options options_;
  stack::Stats stats_;
  stack::Worker worker_;
  unsigned active_ = 0;
  std::uint64_t done_ = 0, failed_ = 0;
};

// The ACK of a flow that there is not, as it comes on the card.
void write_stray(stack::Packet& p, std::uint32_t number) {
  using namespace stack;
  constexpr std::uint16_t kFirst = 1024, kPorts = 60000, kLength = kIpv4Header + kTcpHeader;
  write_ethernet(p.data, {.destination = {{2, 0, 0, 0, 0, 1}}, .source = {{2, 0, 0, 0, 0, 2}}, .type = kEtherIpv4});
  write_ipv4(p.data + kEthernetHeader,
             {.source = kClient.as_v4(), .destination = kServer.as_v4(), .total_length = kLength, .protocol = kProtocolTcp});
  std::byte* tcp = p.data + kEthernetHeader + kIpv4Header;
  write_tcp_plain(tcp, static_cast<std::uint16_t>(kFirst + number % kPorts), kPort, Seq(number), Seq(7 * number), kAck, 1000, false, 0, 0);
  store_checksum(tcp + kTcpChecksumOffset, sum_of_pseudo_header(kClient, kServer, true, kProtocolTcp, kTcpHeader) + partial_sum(tcp, kTcpHeader));
  p.len = kEthernetHeader + kLength;
}

// What the stacks send goes nowhere. How many frames they have sent.
std::uint64_t flood(MemoryCard& card, std::vector<std::unique_ptr<Server>>& servers, std::uint32_t strays, stack::Time& t) {
  constexpr std::uint32_t kBurst = 64;
  std::array<stack::Packet*, kBurst> answers;
  std::uint64_t answered = 0;
  const auto turn = [&] {
    t += stack::microseconds(100);
    for (auto& s : servers) s->turn(t);
    for (std::size_t n; (n = card.far_end().rx(answers.data(), kBurst)) != 0; answered += n) card.far_end().pool().free(answers.data(), n);
  };
  turn();  // what the client is still to hear
  answered = 0;
  for (std::uint32_t done = 0; done < strays; ++done) {
    stack::Packet* p = nullptr;
    if (card.far_end().pool().alloc(&p, 1) == 0) break;
    write_stray(*p, done);
    if (card.far_end().tx(&p, 1) == 0) card.far_end().pool().free(&p, 1);
    if (done % kBurst == 0) turn();
  }
  for (std::size_t i = 0; i < servers.size() + 1; ++i) turn();
  return answered;
}

std::uint64_t passed_on(const std::vector<std::unique_ptr<Server>>& servers) {
  std::uint64_t sum = 0;
  for (const auto& s : servers) sum += s->traffic().sent;
  return sum;
}

int run(std::uint32_t stacks, bool rss, std::uint64_t connections, std::uint32_t strays) {
  stack::Time t = stack::Time{} + stack::seconds(1);
  MemoryCard card(stacks, rss);
  std::vector<std::unique_ptr<Server>> servers;
  for (std::uint32_t i = 0; i < stacks; ++i) servers.push_back(std::make_unique<Server>(card, t));
  for (int i = 0; i < 100; ++i) {  // until every stack has its queue
    t += stack::milliseconds(1);
    for (auto& s : servers) s->turn(t);
  }
  Client client(card, t);
  while (client.done() + client.failed() < connections) {
    t += stack::microseconds(100);  // a virtual clock: the same instructions in every run
    client.turn(t);
    for (auto& s : servers) s->turn(t);
  }
  std::printf("%u stacks, %s: %llu connections, %llu failed, served", stacks, rss ? "rss" : "spread",
              static_cast<unsigned long long>(client.done()), static_cast<unsigned long long>(client.failed()));
  for (auto& s : servers) std::printf(" %llu", static_cast<unsigned long long>(s->served()));
  const std::uint64_t forwarded = passed_on(servers);
  std::printf("; %.3f frames passed on per connection\n",
              static_cast<double>(forwarded) / static_cast<double>(client.done()));
  if (strays > 0) {
    const std::uint64_t answered = flood(card, servers, strays, t);
    std::printf("%u stray ACKs: %llu answers, %llu frames passed on\n", strays, static_cast<unsigned long long>(answered),
                static_cast<unsigned long long>(passed_on(servers) - forwarded));
  }
  return client.failed() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace mtcp::perf

int main(int argc, char** argv) {
  constexpr unsigned long kDefaultConnections = 20000;
  using mtcp::perf::number;
  const auto stacks = argc > 1 ? number<std::uint32_t>(argv[1], 1, mtcp::stack::kMaxStacks) : 1U;
  const std::string_view mode = argc > 2 ? argv[2] : "rss";
  const auto connections = argc > 3 ? number<unsigned long>(argv[3], 1, 100'000'000) : kDefaultConnections;
  const auto strays = argc > 4 ? number<std::uint32_t>(argv[4], 1, 100'000'000) : 0U;
  if (!stacks || (mode != "rss" && mode != "spread") || argc > 5 || !connections || !strays) {
    std::fprintf(stderr, "usage: steering_bench STACKS [rss|spread [CONNECTIONS [STRAYS]]]\n");
    return EXIT_FAILURE;
  }
  return mtcp::perf::run(*stacks, mode == "rss", *connections, *strays);
}
