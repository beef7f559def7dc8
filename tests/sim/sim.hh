// Whole stacks on a simulated wire: the world in which the tests of this folder live. Time is virtual, chance
// is seeded (MTCP_SEED=n repeats a run; a failing test prints its seed), and hours pass in milliseconds.
//
//   Sim sim;                                   // INFO(sim.label()) first thing in the test prints the seed
//   Host& server = sim.add_host();             // 10.0.0.1, then .2, ...
//   Host& client = sim.add_host();
//   sim.wire.options.loss = 0.05;
//   Listener& l = server.listen(80);
//   Socket& c = client.connect(server, 80);
//   c.send(1'000'000);                         // patterned bytes, as the window allows
//   c.close_when_sent = true;
//   REQUIRE(sim.run_until([&] { return server.accepted.size() == 1 && server.accepted[0]->eof; }));
//   CHECK(server.accepted[0]->received == 1'000'000);   // every byte was compared with the pattern
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "stack/tcp/tcp.hh"
#include "stack/worker.hh"
#include "tests/sim/shared_device.hh"
#include "tests/sim/wire.hh"

namespace mtcp::sim {

class Sim;
class Host;

// The `position`-th byte that the end with port `from` sends to that with port `to`.
[[nodiscard]] std::byte pattern_of(std::uint16_t from, std::uint16_t to, std::uint64_t position);

// An application's end of a connection: sends patterned bytes when there is room, reads and compares what
// comes.
class Socket {
 public:
  Socket(Host& host, Connection& connection);

  // Wants to send n more bytes of the pattern.
  void send(std::uint64_t n) {
    to_send += n;
    kick();
  }
  void shutdown_write();
  void close();  // also what close_* below do; `connection` is null afterwards
  void abort();
  // Does what can be done now: reads, writes, closes. Called on events; call it after changing the wishes
  // below.
  void kick();

  // What it is to do.
  bool reading = true;                // read whatever comes
  std::size_t read_limit = SIZE_MAX;  // bytes per kick
  bool close_when_sent = false;       // close once everything is handed over
  bool shutdown_when_sent = false;
  bool close_on_eof = false;
  bool echo = false;  // send as many bytes as have been received

  // What has happened.
  Host& host;
  Connection* connection;  // null once closed
  bool connected = false;
  bool eof = false;
  Errc error = Errc::ok;
  std::uint64_t to_send = 0, sent = 0, received = 0;
  std::uint64_t wrong = 0;  // bytes that differ from the pattern
  FlowKey key;

 private:
  void read_some();
  void write_some();
  bool write_shut_ = false;
};

class Host {
 public:
  Host(Sim& sim, std::uint8_t number, const std::function<void(Options&)>& tune, std::size_t packets);
  // A process of its own on a device that others share.
  Host(Sim& sim, SimSharedDevice& device, IpAddress address, std::uint64_t process);
  ~Host();

  Listener& listen(std::uint16_t port, Worker::ListenOptions o = {});
  // Closes `l`, or leaves it to another process; it is gone afterwards, and no longer asked for connections.
  void close(Listener& l);
  void leave(Listener& l);
  // Null if the stack refuses at once; the reason is in `connect_error`. `local_port` 0: the stack chooses.
  Socket* try_connect(const Endpoint& to, const SocketOptions& o = {}, std::uint16_t local_port = 0);
  Socket& connect(const Host& to, std::uint16_t port, const SocketOptions& o = {},
                  std::uint16_t local_port = 0);
  // Whether the application waits for connections of `l`, where others do, too.
  void watch(Listener& l, bool on);
  // kill -9: nothing is said to anybody. Only where the device is shared.
  void kill();
  // The program is killed and started again, with the same address; nothing is said to anybody. `kept`: with the secrets
  // that outlive a process. Only where the device is not shared.
  void restart(bool kept);
  // exit(), once the application has closed what it had.
  void exit();
  // The application stops taking connections from its listeners.
  bool accepting = true;
  // It does not run before then: it computes, or waits for its turn on the CPU.
  Time stalled_until{};
  // What it takes for the time is so much older than the others' (a process that is stopped between reading the clock
  // and its next step), but never runs backwards.
  Duration clock_delay{};
  Time clock();
  // Others are said to be on its device, who must outlive it: before it has done anything.
  void share_with(Steering& others);
  void share_with(KernelShare& kernel);  // the interface; before it has done anything
  // Called for each accepted socket.
  std::function<void(Socket&)> on_accept;
  // One turn of the application: poll, events, flush. Returns what poll() did.
  std::size_t turn();
  // Ends the worker and tells how many packets have not come back to the pool.
  std::size_t leaked_packets();
  [[nodiscard]] std::uint64_t count(Counter c) const { return stats.get(c); }
  [[nodiscard]] Time next_deadline() const;

  Sim& sim;
  IpAddress address;
  Secrets secrets;
  Options options;
  Stats stats;
  HeapPool pool;
  SimPort port;
  SimSharedDevice* device = nullptr;       // if it is shared: then `port` and `pool` are not used
  std::unique_ptr<SteeringPort> steering;
  std::uint64_t process = 0;
  std::unique_ptr<Worker> worker;  // null: the process has ended
  Errc connect_error = Errc::ok;
  std::deque<std::unique_ptr<Socket>> sockets;  // all that there have been
  std::deque<Socket*> accepted;
  std::deque<Listener*> listeners;

 private:
  void accept_all(Listener& l);
  void forget(const Listener& l) { std::erase(listeners, &l); }
  void end();
  Time clock_{};
};

class Sim {
 public:
  // Without a seed: MTCP_SEED, else one from the system.
  explicit Sim(std::uint64_t seed = 0);

  Host& add_host(const std::function<void(Options&)>& tune = {}, std::size_t packets = 8192);
  // A device with an address of its own, and a process that joins the stacks on it.
  SimSharedDevice& add_device(std::uint32_t queues, std::uint32_t slots = 16);
  Host& add_process(SimSharedDevice& device);
  // Everything that happens at the present instant, then on to the next one (not beyond `limit`).
  void step(Time limit);
  // False if it did not come true within `limit` of virtual time.
  bool run_until(const std::function<bool()>& condition, Duration limit = seconds(60));
  void run_for(Duration d);
  [[nodiscard]] std::string label() const { return "MTCP_SEED=" + std::to_string(seed_); }

 private:
  std::uint64_t seed_;
  std::uint64_t next_process_ = 1;

 public:
  std::mt19937_64 random;
  const std::array<std::uint64_t, 4> machine{random(), random(), random(), random()};  // Secrets::host
  Time now = Time(seconds(1'000'000));
  Wire wire;
  std::deque<std::unique_ptr<SimSharedDevice>> devices;
  std::deque<std::unique_ptr<Host>> hosts;
  std::set<std::uint16_t> held;  // ports for which a process without a stack has a listener
  std::set<std::uint16_t> expected;  // which is about to have one
  static constexpr IpAddress kShared = IpAddress::v4(10, 0, 0, 100);  // of all devices that are shared: one in a test
  // Others who act on the wire (RawPeer): called in each step.
  std::deque<std::function<void()>> actors;
};

}  // namespace mtcp::sim
