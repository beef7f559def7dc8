// Flows that share a bottleneck: Jain's index, and what cubic and bbr leave each other.
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>

#include "tests/sim/path_world.hh"

using namespace mtcp::sim;

namespace {

constexpr double kMbit = 125'000;

struct Shared {
  double jain = 0, used = 0, first = 0;  // index; of the rate; share of the first control's flows
  double again = 0;
};

// `each` flows of each of the controls, over 20 ms and a queue of `queue` bandwidth-delay products; begun one after another.
Shared share(std::initializer_list<const char*> controls, unsigned each, double rate, double queue, Duration time) {
  Sim sim(7);
  Host& server = sim.add_host(large_windows, 32768);
  server.listen(80);
  Host& client = sim.add_host(large_windows, 65536);
  Conditions c{.rate = rate, .rtt = milliseconds(20), .queue = queue};
  const Impairment impairment(sim, c);
  std::vector<Socket*> sockets;
  const auto names = congestion_control_names();
  for (unsigned i = 0; i < each; ++i)
    for (const char* control : controls) {
      SocketOptions o;
      const auto at = std::find_if(names.begin(), names.end(), [&](const char* n) { return std::string_view(n) == control; });
      o.congestion = static_cast<std::uint8_t>(at - names.begin() + 1);
      sockets.push_back(&client.connect(server, 80, o));
      sockets.back()->send(1ULL << 50);
      sim.run_for(milliseconds(37));
    }
  sim.run_for(time / 2);
  std::vector<std::uint64_t> before;
  for (Socket* s : sockets) before.push_back(s->connection->bytes_acked);
  sim.run_for(time);
  Shared result;
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    INFO(name(sockets[i]->error));
    REQUIRE(sockets[i]->connection != nullptr);
    const double got = static_cast<double>(sockets[i]->connection->bytes_acked - before[i]);
    sum += got;
    squares += got * got;
    if (i % controls.size() == 0) result.first += got;
  }
  result.jain = sum * sum / (static_cast<double>(sockets.size()) * squares);
  result.used = sum / Impairment::seconds_of(time) / possible(c);
  result.first /= sum;
  result.again = static_cast<double>(client.count(Counter::retransmitted_segments)) / static_cast<double>(client.count(Counter::segments_sent));
  if (std::getenv("MTCP_TABLE") != nullptr)
    std::printf("| %u %s%s | %.0f Mbit/s, %.0f | %.3f | %.2f | %.2f | %.2f %% |\n", each, *controls.begin(), controls.size() > 1 ? " and as many bbr" : "",
                rate / kMbit, queue, result.jain, result.used, result.first, 100 * result.again);
  return result;
}

}  // namespace

TEST_CASE("fairness: 2 to 64 flows of one control have the same of a bottleneck (Jain's index of 0.95)", "[sim]") {
  for (const char* control : {"cubic", "reno", "bbr"})
    for (const unsigned flows : {2U, 8U, 64U}) {
      INFO(control << ", " << flows);
      const Shared s = share({control}, flows, std::max(10.0, 0.8 * flows) * kMbit, 2, seconds(std::string_view(control) == "bbr" ? 40 : flows > 8 ? 20 : 30));
      CHECK(s.jain >= 0.95);
      CHECK(s.used >= 0.9);
    }
}

TEST_CASE("coexistence: neither cubic nor bbr starves the other, whichever the queue favours", "[sim]") {
  for (const double queue : {1.0, 2.0, 4.0, 8.0}) {
    INFO(queue);
    const Shared s = share({"cubic", "bbr"}, 1, 20 * kMbit, queue, seconds(30));
    CHECK(s.first >= 0.05);
    CHECK(s.first <= 0.95);
    CHECK(s.used >= 0.9);
  }
}
