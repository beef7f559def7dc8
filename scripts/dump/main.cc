// mtcp-dump: tcpdump for what the kernel does not see. Asks the processes for copies of their stacks' packets, and writes them.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scripts/dump/arguments.hh"
#include "scripts/dump/find.hh"
#include "scripts/dump/pcapng.hh"
#include "scripts/dump/source.hh"

namespace mtcp::dump {
namespace {

constexpr int kNap = 5;                      // milliseconds between two looks at rings that are empty
constexpr std::int64_t kBetweenSearches = 500'000'000;  // nanoseconds
constexpr std::uint64_t kTurn = 4096;        // packets of one stack, before the others have theirs
constexpr int kLastTurns = 64;

volatile sig_atomic_t stop = 0;

std::int64_t clock_now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

class Dump {
 public:
  Dump(const Arguments& arguments, int fd) : arguments_(arguments), out_(fd) {}
  int run();

 private:
  std::string search();
  bool is_over();
  std::uint64_t drain(Source& source);
  bool drain_all();
  void wait(int milliseconds);
  void end_finished();
  int finish();

  const Arguments& arguments_;
  PcapngWriter out_;
  Finder finder_;
  std::vector<std::unique_ptr<Source>> sources_;
  std::vector<const Source*> gone_;
  std::uint32_t interfaces_ = 0;
  std::uint64_t captured_ = 0, dropped_ = 0;
  std::int64_t next_search_ = 0;
};

// Adds stacks that are new. Returns why the last one could not be added, or none can be found.
std::string Dump::search() {
  next_search_ = clock_now() + kBetweenSearches;
  std::string problem;
  const std::string hidden = finder_.look(arguments_.pid, [&](const Socket& s) {
    auto source = std::make_unique<Source>(s.fd, s.pid, arguments_.wanted, problem);
    if (!problem.empty()) {
      problem = source->name() + ": " + problem;
      return;
    }
    source->introduce(out_, interfaces_++);
    fprintf(stderr, "mtcp-dump: capturing on %s, snapshot length %u bytes\n", source->name().c_str(), arguments_.wanted.snap_length);
    sources_.push_back(std::move(source));
  });
  return problem.empty() ? hidden : problem;
}

std::uint64_t Dump::drain(Source& source) {
  const std::uint64_t n = source.drain(out_, std::min(kTurn, arguments_.count - captured_));
  captured_ += n;
  return n;
}

bool Dump::drain_all() {
  bool any = false;
  for (const auto& source : sources_) any = drain(*source) != 0 || any;
  return any;
}

void Dump::wait(int milliseconds) {
  std::vector<pollfd> fds;
  for (const auto& source : sources_) {
    fds.push_back({source->fd(), POLLIN, 0});
    fds.push_back({source->process_fd(), POLLIN, 0});
  }
  poll(fds.data(), fds.size(), milliseconds);
  gone_.clear();
  for (std::size_t i = 0; i < sources_.size(); ++i)
    if (fds[2 * i].revents != 0 || fds[2 * i + 1].revents != 0) gone_.push_back(sources_[i].get());
}

// Who has gone writes no more, so what is there now is all.
void Dump::end_finished() {
  std::erase_if(sources_, [&](const std::unique_ptr<Source>& source) {
    const bool gone = std::find(gone_.begin(), gone_.end(), source.get()) != gone_.end();
    if (!gone && !source->broken()) return false;
    while (drain(*source) != 0) continue;
    source->conclude(out_, dropped_);
    fprintf(stderr, "mtcp-dump: %s %s\n", source->name().c_str(), source->broken() ? "has put something else than packets into its buffer" : "has ended");
    return true;
  });
  gone_.clear();
}

// Of one process all that there was; others may begin at any time.
bool Dump::is_over() {
  if (stop != 0 || captured_ >= arguments_.count || out_.error() != 0) return true;
  if (sources_.empty() && arguments_.pid != 0) {
    (void)search();
    return sources_.empty();
  }
  if (clock_now() >= next_search_) (void)search();
  return false;
}

int Dump::finish() {
  for (int i = 0; i < kLastTurns && drain_all(); ++i) continue;  // they go on while we read
  for (const auto& source : sources_) source->conclude(out_, dropped_);
  const bool written = out_.flush();
  fprintf(stderr, "%llu packets captured\n%llu packets dropped\n", static_cast<unsigned long long>(captured_), static_cast<unsigned long long>(dropped_));
  if (!written) fprintf(stderr, "mtcp-dump: %s: %s\n", arguments_.file.c_str(), strerror(out_.error()));
  return written ? 0 : 1;
}

int Dump::run() {
  out_.begin("mtcp-dump " MTCP_VERSION);
  const std::string problem = search();
  if (!problem.empty()) fprintf(stderr, "mtcp-dump: %s\n", problem.c_str());
  if (sources_.empty()) {
    if (problem.empty() && arguments_.pid != 0) fprintf(stderr, "mtcp-dump: process %d has no stack; mtcp-stat says which have\n", arguments_.pid);
    else if (problem.empty()) fprintf(stderr, "mtcp-dump: no process has a stack%s\n", geteuid() != 0 ? " that can be seen: run as root" : "");
    return 1;
  }
  while (!is_over()) {
    const bool any = drain_all();
    end_finished();
    if (out_.flush()) wait(any ? 0 : kNap);
  }
  return finish();
}

void on_signal(int) { stop = 1; }

int main_of(int count, char** words) {
  int status = 0;
  const std::optional<Arguments> arguments = parse_arguments(count, words, status);
  if (!arguments) return status;
  int fd = STDOUT_FILENO;
  if (arguments->file == "-" && isatty(fd) == 1) {
    fputs("mtcp-dump: packets are not for a terminal: mtcp-dump | tcpdump -r -, or -w FILE\n", stderr);
    return 2;
  }
  if (arguments->file != "-") fd = open(arguments->file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) {
    fprintf(stderr, "mtcp-dump: %s: %s\n", arguments->file.c_str(), strerror(errno));
    return 1;
  }
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
  return Dump(*arguments, fd).run();
}

}  // namespace
}  // namespace mtcp::dump

int main(int count, char** words) { return mtcp::dump::main_of(count, words); }
