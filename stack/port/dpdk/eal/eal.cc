#include "stack/port/dpdk/eal/eal.hh"

#include <errno.h>
#include <pthread.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_version.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "stack/port/dpdk/eal/libc_calls.hh"

namespace mtcp::stack::dpdk {

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kHugePage = 2 * kMiB;

struct State {
  bool started = false;
  pid_t pid = 0;
  bool huge = false;
  std::size_t memory = 0;
};
State& state() {
  static State instance;
  return instance;
}

// Whether the kernel would give us so much of its huge pages: asking is more reliable than counting, because of what others
// have reserved. A cgroup's limit, or a cpuset's memory, shows only when they are touched: `touch` costs some milliseconds, in
// which nobody else has the pages.
bool huge_pages_available(std::size_t bytes, bool touch) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (p == MAP_FAILED) return false;
  const bool there = !touch || madvise(p, bytes, MADV_POPULATE_WRITE) == 0 || errno == EINVAL;  // before Linux 5.14
  munmap(p, bytes);
  return there;
}

// "0@(0,2,3)": one lcore that floats over the CPUs that the thread may use now.
std::string floating_lcore() {
  cpu_set_t cpus;
  std::string list;
  if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) {
    for (int cpu = 0; cpu < RTE_MAX_LCORE; ++cpu)
      if (CPU_ISSET(cpu, &cpus)) list += (list.empty() ? "" : ",") + std::to_string(cpu);
  }
  return list.empty() ? "--lcores=0" : "--lcores=0@(" + list + ")";
}

std::vector<std::string> arguments(const EalConfig& config, bool huge, std::size_t memory) {
  std::vector<std::string> a = {"mtcp", "--no-telemetry", "--log-level=4", floating_lcore()};
  if (huge) {
    a.insert(a.end(), {"--in-memory", "--single-file-segments"});
  } else {
    a.insert(a.end(), {"--no-huge", "--no-shconf", "-m", std::to_string(memory / kMiB)});
  }
  if (config.pci.empty()) {
    a.insert(a.end(), {"--no-pci", "--iova-mode=va"});
  } else {
    a.insert(a.end(), {"-a", config.pci});
  }
  return a;
}

int init(const std::vector<std::string>& arguments) {
  std::vector<std::string> copies = arguments;
  std::vector<char*> argv;
  for (std::string& s : copies) argv.push_back(s.data());
  argv.push_back(nullptr);
  return rte_eal_init(static_cast<int>(copies.size()), argv.data());
}

}  // namespace

bool uses_huge_pages() { return state().huge; }

void set_thread_number(unsigned number) { RTE_PER_LCORE(_lcore_id) = number; }

bool start_eal(const EalConfig& config, std::string& message) {
  State& s = state();
  const std::size_t memory = (config.memory + kHugePage - 1) / kHugePage * kHugePage;
  if (s.started && s.pid != getpid()) {
    message =
        "this process was forked from one that has a device open, and DPDK cannot be started once more in it";
    return false;
  }
  if (s.started) {
    if (s.huge || memory <= s.memory) return true;
    message = "DPDK was started with " + std::to_string(s.memory / kMiB) +
              " MB in this process and cannot take " + std::to_string(memory / kMiB) + " MB now";
    return false;
  }
  const bool huge = config.hugepages != 0 && huge_pages_available(memory, config.hugepages < 0);
  if (config.hugepages > 0 && !huge) {
    const std::string pages = std::to_string(memory / kHugePage);
    message = "hugepages = \"on\", but " + std::to_string(memory / kMiB) +
              " MB of huge pages are not free; run: echo " + pages +
              " | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages" +
              " (or set hugepages = \"auto\")";
    return false;
  }

  cpu_set_t affinity;
  const bool have_affinity = sched_getaffinity(0, sizeof affinity, &affinity) == 0;
  log_clear();
  const int result = init(arguments(config, huge, memory));
  if (have_affinity) sched_setaffinity(0, sizeof affinity, &affinity);
  if (result < 0) {
    message = "DPDK does not start: " + log_last_error() + " (" + rte_strerror(rte_errno) + ")";
    return false;
  }
  s = {true, getpid(), huge, memory};
  return true;
}

}  // namespace mtcp::stack::dpdk

extern "C" {

// DPDK sleeps 100 ms to measure the TSC and rounds to 10 MHz; 5 ms are enough for that.
std::uint64_t __wrap_get_tsc_freq() {
  timespec from, to;
  if (clock_gettime(CLOCK_MONOTONIC_RAW, &from) != 0) return 0;
  const std::uint64_t start = rte_rdtsc();
  const timespec nap{0, 5'000'000};
  nanosleep(&nap, nullptr);
  clock_gettime(CLOCK_MONOTONIC_RAW, &to);
  const std::uint64_t cycles = rte_rdtsc() - start;
  const double nanoseconds =
      static_cast<double>(to.tv_sec - from.tv_sec) * 1e9 + static_cast<double>(to.tv_nsec - from.tv_nsec);
  const double hertz = static_cast<double>(cycles) * 1e9 / nanoseconds;
  return static_cast<std::uint64_t>(hertz / 1e7 + 0.5) * 10'000'000;
}
}
