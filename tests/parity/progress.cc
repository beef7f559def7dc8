// Tells the run script which case has begun (one line per case into PARITY_PROGRESS_FD), so that it can end
// one that hangs and name it; and lifts the limit on descriptors for the cases with many connections.
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <string>

namespace {

class Progress : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testRunStarting(const Catch::TestRunInfo& info) override {
    TestEventListenerBase::testRunStarting(info);
    if (const char* text = std::getenv("PARITY_PROGRESS_FD")) fd_ = std::atoi(text);
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  void testCaseStarting(const Catch::TestCaseInfo& info) override {
    TestEventListenerBase::testCaseStarting(info);
    say("start " + info.name + "\n");
  }
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    say((stats.totals.testCases.allOk() ? "ok " : "failed ") + stats.testInfo.name + "\n");
    TestEventListenerBase::testCaseEnded(stats);
  }

 private:
  void say(const std::string& line) {
    // A script that has gone away is no reason to fail a test.
    if (fd_ >= 0 && ::write(fd_, line.data(), line.size()) < 0) fd_ = -1;
  }
  int fd_ = -1;
};

}  // namespace

CATCH_REGISTER_LISTENER(Progress)
