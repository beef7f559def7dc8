// epoll, poll and select: which reach the engine, and with what timeout.
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

#include "tests/preload/libc_names.hh"
#include "tests/preload/under_shim.hh"

using namespace mtcp::preload;
using mtcp::intercept::FdKind;
using Calls = std::vector<std::string>;

TEST_CASE("a set that holds sockets of the engine is waited for by the engine, with the right timeout") {
  const Connected pair;
  FakeControl& c = control();
  Fd ep(epoll_create1(0));
  epoll_event e[4]{{EPOLLIN, {}}};
  CHECK((c.results = {0}, epoll_ctl(ep, EPOLL_CTL_ADD, pair.a, e)) == 0);
  CHECK(only_call(ep) == "epoll_ctl ep=@ op=1 fd=" + std::to_string(pair.a));
  CHECK(epoll_wait(ep, e, 1, 0) == 0);  // not the engine's before the engine says so
  CHECK(recorded().empty());
  c.services->fds->set(ep, FdKind::epoll);
  CHECK((c.results = {1}, epoll_wait(ep, e, 4, -1)) == 1);
  CHECK(only_call(ep) == "epoll_wait ep=@ n=4 timeout=none mask=none");
  CHECK((c.results = {1}, epoll_wait(ep, e, 4, 1250)) == 1);
  CHECK(only_call(ep) == "epoll_wait ep=@ n=4 timeout=1s250000000ns mask=none");
  sigset_t mask;
  sigemptyset(&mask);
  CHECK((c.results = {1}, epoll_pwait(ep, e, 4, 0, &mask)) == 1);
  CHECK(only_call(ep) == "epoll_wait ep=@ n=4 timeout=0s0ns mask=given");
  const timespec t{2, 5};
  CHECK((c.results = {1}, epoll_pwait2(ep, e, 4, &t, nullptr)) == 1);
  CHECK(only_call(ep) == "epoll_wait ep=@ n=4 timeout=2s5ns mask=none");
  // A set of sets.
  Fd outer(epoll_create1(0));
  CHECK((c.results = {0}, epoll_ctl(outer, EPOLL_CTL_ADD, ep, e)) == 0);
  CHECK(recorded().size() == 1);
  // What is no socket does not read: the kernel says why.
  char p;
  CHECK(read(ep, &p, 1) == -1);
  CHECK(errno == EINVAL);
  CHECK(send(ep, &p, 1, 0) == -1);
  CHECK(errno == ENOTSOCK);
  CHECK(recorded().empty());
  CHECK((c.results = {7}, dup(ep)) == 7);
  CHECK(only_call(ep) == "dup fd=@");
  ep.reset();
  CHECK(recorded().size() == 1);
}

TEST_CASE("poll and select reach the engine if one descriptor is its own") {
  const Connected pair;
  FakeControl& c = control();
  Fd kernel(eventfd(0, 0));
  pollfd p[2] = {{kernel, POLLIN, 0}, {pair.a, POLLOUT, 0}};
  CHECK(poll(p, 1, 0) == 0);
  CHECK(recorded().empty());
  CHECK((c.results = {1}, poll(p, 2, 5)) == 1);
  CHECK((c.results = {1}, __poll(p, 2, 5)) == 1);
  CHECK((c.results = {1}, __poll_chk(p, 2, 5, sizeof p)) == 1);
  CHECK(recorded() == Calls(3, "poll n=2 timeout=0s5000000ns mask=none"));
  const timespec t{1, 2};
  sigset_t mask;
  sigemptyset(&mask);
  CHECK((c.results = {1}, ppoll(p, 2, &t, &mask)) == 1);
  CHECK((c.results = {1}, __ppoll_chk(p, 2, &t, &mask, sizeof p)) == 1);
  CHECK(recorded() == Calls(2, "poll n=2 timeout=1s2ns mask=given"));
  const timespec bad{0, 1000000000};
  CHECK(ppoll(p, 2, &bad, nullptr) == -1);
  CHECK(errno == EINVAL);

  fd_set set;
  FD_ZERO(&set);
  FD_SET(pair.a, &set);
  timeval v{1, 1500000};
  CHECK((c.results = {1}, select(pair.a + 1, &set, nullptr, nullptr, &v)) == 1);
  CHECK(recorded() == Calls{"select n=" + std::to_string(pair.a + 1) + " timeout=2s500000000ns mask=none"});
  CHECK(v.tv_sec * 1000000 + v.tv_usec <= 2500000);  // Linux leaves what was not waited
  CHECK(v.tv_sec * 1000000 + v.tv_usec > 500000);
  CHECK((c.results = {1}, __select(pair.a + 1, nullptr, &set, nullptr, nullptr)) == 1);
  CHECK(recorded() == Calls{"select n=" + std::to_string(pair.a + 1) + " timeout=none mask=none"});
  CHECK((c.results = {1}, pselect(pair.a + 1, nullptr, nullptr, &set, &t, &mask)) == 1);
  CHECK(recorded() == Calls{"select n=" + std::to_string(pair.a + 1) + " timeout=1s2ns mask=given"});
  // A descriptor beyond the first argument is not looked at.
  timeval zero{};
  CHECK(select(pair.a, &set, nullptr, nullptr, &zero) == 0);
  CHECK(recorded().empty());
}
