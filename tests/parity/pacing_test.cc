// SO_MAX_PACING_RATE, and what BBR tells of itself.
#include <linux/inet_diag.h>

#include <cstring>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

constexpr int kMaxPacingRate = 47;
constexpr std::size_t kMegabyte = 1'000'000;

template <typename T>
parity::Errno set_rate(int fd, T rate) {
  return error_of(::setsockopt(fd, SOL_SOCKET, kMaxPacingRate, &rate, sizeof rate));
}
template <typename T>
T rate_of(int fd) {
  T rate{};
  socklen_t size = sizeof rate;
  REQUIRE(::getsockopt(fd, SOL_SOCKET, kMaxPacingRate, &rate, &size) == 0);
  REQUIRE(size == sizeof rate);
  return rate;
}

}  // namespace

TEST_CASE("pacing option: SO_MAX_PACING_RATE is an unsigned int or long, and all ones are no limit", "[pacing]") {
  const Pair pair = connected_pair();
  const Fd fresh = stream_socket();
  for (const int fd : {int{pair.client}, int{fresh}}) {
    REQUIRE(rate_of<std::uint32_t>(fd) == UINT32_MAX);
    REQUIRE(rate_of<std::uint64_t>(fd) == UINT64_MAX);
    REQUIRE(set_rate<std::uint32_t>(fd, 3'000'000'000U) == 0);
    REQUIRE(rate_of<std::uint32_t>(fd) == 3'000'000'000U);
    REQUIRE(rate_of<std::uint64_t>(fd) == 3'000'000'000U);
    REQUIRE(set_rate<std::uint64_t>(fd, 12'500'000'000U) == 0);
    REQUIRE(rate_of<std::uint64_t>(fd) == 12'500'000'000U);
    REQUIRE(rate_of<std::uint32_t>(fd) == UINT32_MAX);
    REQUIRE(set_rate<std::uint32_t>(fd, UINT32_MAX) == 0);
    REQUIRE(rate_of<std::uint64_t>(fd) == UINT64_MAX);
    REQUIRE(set_rate<std::uint16_t>(fd, 5) == EINVAL);
  }
}

TEST_CASE("pacing option: what a listener accepts has its rate", "[pacing]") {
  const Fd l = listener();
  REQUIRE(set_rate<std::uint32_t>(l, 5'000'000) == 0);
  const Pair pair = connected_pair_via(l);
  REQUIRE(rate_of<std::uint64_t>(pair.server) == 5'000'000);
  REQUIRE(rate_of<std::uint64_t>(pair.client) == UINT64_MAX);
}

TEST_CASE("pacing option: SO_MAX_PACING_RATE holds a connection to its rate, and TCP_INFO tells it", "[pacing]") {
  const Pair pair = connected_pair();
  REQUIRE(set_rate<std::uint32_t>(pair.client, 20 * kMegabyte) == 0);
  const std::string data = pattern(4 * kMegabyte);
  const Stopwatch watch;
  std::thread writer([&] { send_all(pair.client, data); });
  REQUIRE((receive_exactly(pair.server, data.size()) == data));
  const milliseconds took = watch.elapsed();
  writer.join();
  CHECK(took >= milliseconds(140));  // the first ten segments, which may be of 64 KB, are not paced
  CHECK(took < milliseconds(4000));
  const LongInfo info = info_of(pair.client);
  CHECK(info.max_pacing_rate == 20 * kMegabyte);
  CHECK(info.pacing_rate <= 20 * kMegabyte);
  CHECK(info.delivery_rate > 10'000);
}

// Whoever runs the stack by then has gone to sleep before there was anything to pace.
TEST_CASE("pacing: what was written goes on leaving at its rate when the writer turns to something else", "[pacing]") {
  const Pair pair = connected_pair();
  REQUIRE(set_rate<std::uint32_t>(pair.client, 10 * kMegabyte) == 0);
  set_option(pair.client, SOL_SOCKET, SO_SNDBUF, 3 * static_cast<int>(kMegabyte));
  const std::string data = pattern(3 * kMegabyte / 2);
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.server, data.size()); });
  std::this_thread::sleep_for(milliseconds(30));
  const Stopwatch watch;
  REQUIRE(send_all(pair.client, data));
  reader.join();
  CHECK((got == data));
  CHECK(watch.elapsed() < milliseconds(2000));
}

TEST_CASE("bbr: TCP_CC_INFO tells its model, and nothing of those that have none", "[pacing]") {
  const Pair pair = connected_pair();
  tcp_bbr_info info{};
  socklen_t size = sizeof info;
  REQUIRE(error_of(::setsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) == 0);
  REQUIRE(::getsockopt(pair.client, IPPROTO_TCP, 26, &info, &size) == 0);
  REQUIRE(size == 0);
  const auto error = error_of(::setsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3));
  if (error == ENOENT) {
    WARN("this kernel has no bbr");
    return;
  }
  REQUIRE(error == 0);
  const std::string data = pattern(2 * kMegabyte);
  std::thread writer([&] { send_all(pair.client, data); });
  REQUIRE((receive_exactly(pair.server, data.size()) == data));
  writer.join();
  size = sizeof info;
  REQUIRE(::getsockopt(pair.client, IPPROTO_TCP, 26, &info, &size) == 0);
  REQUIRE(size == sizeof info);
  CHECK((std::uint64_t{info.bbr_bw_hi} << 32 | info.bbr_bw_lo) > kMegabyte);
  CHECK(info.bbr_min_rtt < 1'000'000);
  CHECK(info.bbr_pacing_gain >= 80);  // 1/2.885 at least, in 1/256
  CHECK(info.bbr_pacing_gain <= 739);
  CHECK(info.bbr_cwnd_gain >= 256);
  CHECK(info.bbr_cwnd_gain <= 739);
}
