// TCP_INFO: what it says of where the time goes, of windows and of rates.
#include <cstring>
#include <thread>

#include "tests/parity/net.hh"

using namespace parity;

namespace {

// The rest of the kernel's structure; how much of it there is depends on the kernel.
struct WholeInfo {
  LongInfo known;
  std::uint32_t dsack_dups, reord_seen, rcv_ooopack, snd_wnd, rcv_wnd, rehash;
  std::uint16_t total_rto, total_rto_recoveries;
  std::uint32_t total_rto_time;
};
static_assert(sizeof(WholeInfo) == 248);

struct Told {
  WholeInfo info{};
  tcp_info first{};
  socklen_t size = sizeof info;
  explicit Told(int fd) {
    REQUIRE(error_of(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size)) == 0);
    std::memcpy(&first, &info, sizeof first);
  }
  // rcv_wnd is as old as Linux 6.2, total_rto as 6.7.
  [[nodiscard]] bool has_rcv_wnd() const { return size >= offsetof(WholeInfo, rehash); }
  [[nodiscard]] bool has_timeouts() const { return size >= sizeof info; }
};

constexpr std::uint64_t kMillisecond = 1000;  // of its microseconds

}  // namespace

TEST_CASE("tcp info: a peer that does not read is what the time goes to", "[tcpinfo]") {
  const Pair pair = connected_pair();
  const Told idle(pair.client);
  CHECK(idle.info.known.busy_time <= 20 * kMillisecond);
  CHECK(idle.info.known.rwnd_limited == 0);
  CHECK(idle.info.known.sndbuf_limited == 0);
  (void)fill(pair.client);
  const Told before(pair.client);
  const Stopwatch watch;
  std::this_thread::sleep_for(milliseconds(200));
  const Told after(pair.client);
  const auto most = static_cast<std::uint64_t>(watch.elapsed().count() + 20) * kMillisecond;
  const auto& a = after.info.known;
  CHECK(a.busy_time - before.info.known.busy_time >= 180 * kMillisecond);
  CHECK(a.busy_time - before.info.known.busy_time <= most);
  CHECK(a.rwnd_limited - before.info.known.rwnd_limited >= 180 * kMillisecond);
  CHECK(a.rwnd_limited <= a.busy_time);
  CHECK(a.sndbuf_limited <= a.busy_time);
  CHECK(a.notsent_bytes > 0);
  CHECK(after.info.snd_wnd < 65536);
  (void)drain(pair.server);
  REQUIRE(becomes(pair.client, POLLOUT));
}

TEST_CASE("tcp info: once all is acknowledged no more time is spent", "[tcpinfo]") {
  const Pair pair = connected_pair();
  const std::string data = pattern(200'000);
  std::thread writer([&] { send_all(pair.client, data); });
  REQUIRE(receive_exactly(pair.server, data.size()) == data);
  writer.join();
  std::this_thread::sleep_for(milliseconds(250));  // beyond any delayed ACK
  const Told first(pair.client);
  CHECK(first.first.tcpi_unacked == 0);
  std::this_thread::sleep_for(milliseconds(100));
  const Told second(pair.client);
  CHECK(first.info.known.busy_time == second.info.known.busy_time);
  CHECK(first.info.known.rwnd_limited == second.info.known.rwnd_limited);
  CHECK(first.info.known.sndbuf_limited == second.info.known.sndbuf_limited);
}

TEST_CASE("tcp info: rates, round trips and counts of a transfer", "[tcpinfo]") {
  const Pair pair = connected_pair();
  const std::string data = pattern(500'000);
  std::thread writer([&] { send_all(pair.client, data); });
  REQUIRE(receive_exactly(pair.server, data.size()) == data);
  writer.join();
  std::this_thread::sleep_for(milliseconds(250));
  const Told c(pair.client), s(pair.server);
  const auto& k = c.info.known;
  CHECK(k.delivery_rate > 100'000);
  CHECK(k.pacing_rate > 100'000);
  CHECK(k.max_pacing_rate == UINT64_MAX);
  CHECK(k.min_rtt <= c.first.tcpi_rtt + 1000);
  CHECK(k.bytes_sent >= data.size());
  CHECK(k.bytes_sent - k.bytes_retrans == data.size());
  CHECK(k.bytes_acked - data.size() <= 1);  // the SYN counts where it was sent first
  CHECK(s.info.known.bytes_received == data.size());
  CHECK(k.notsent_bytes == 0);
  CHECK(k.delivered >= 2);
  CHECK(k.delivered <= k.data_segs_out + 1);
  CHECK(k.delivered_ce == 0);
  CHECK(k.segs_out >= k.data_segs_out);
  CHECK(k.data_segs_in == 0);
  CHECK(s.info.known.data_segs_out == 0);
  CHECK(s.info.known.data_segs_in >= 2);
  CHECK(s.info.known.segs_in >= s.info.known.data_segs_in);
  // An ACK that waits for the CPU is taken for a loss: its segment is sent again, and the receiver tells of the duplicate.
  CHECK(c.info.dsack_dups <= c.first.tcpi_total_retrans);
  if (c.first.tcpi_total_retrans == 0) CHECK(c.info.reord_seen == 0);
  CHECK(s.info.rcv_ooopack == 0);
  CHECK(s.first.tcpi_rcv_space > 0);
  CHECK(s.first.tcpi_rcv_ssthresh > 0);
}

TEST_CASE("tcp info: the window that one end offers is the other's", "[tcpinfo]") {
  const Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "x"));
  REQUIRE(receive_exactly(pair.server, 1) == "x");
  std::this_thread::sleep_for(milliseconds(250));
  const Told c(pair.client), s(pair.server);
  if (!s.has_rcv_wnd()) return;
  const std::uint32_t unit = 1U << s.first.tcpi_rcv_wscale;
  CHECK(s.info.rcv_wnd + unit >= c.info.snd_wnd);
  CHECK(s.info.rcv_wnd <= c.info.snd_wnd + unit);
  if (!c.has_timeouts()) return;
  CHECK(c.info.total_rto <= c.first.tcpi_total_retrans);
  CHECK(c.info.total_rto_recoveries <= c.info.total_rto);
  if (c.info.total_rto == 0) CHECK(c.info.total_rto_time == 0);
}
