// A device of another process: what becomes of its descriptors when it can't be joined.
#include "stack/port/dpdk/guest.hh"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

using namespace mtcp::stack;
using namespace mtcp::stack::dpdk;

namespace {

std::ptrdiff_t open_files() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

}  // namespace

TEST_CASE("an invitation that comes to nothing leaves no descriptor open") {
  GuestTerms terms{};
  terms.queues = terms.rings = terms.frames = terms.packets = 1;
  terms.slots = 2;
  terms.entries = 128;
  terms.frame = 2048;
  terms.frame_size = 4096;
  const auto claims = Claims::create(terms.queues);
  const auto shared = SharedState::create({.frame = terms.frame, .slots = terms.slots, .entries = terms.entries});
  REQUIRE(claims != nullptr);
  REQUIRE(shared != nullptr);
  std::vector<int> originals{claims->descriptor()};
  for (const int fd : shared->descriptors()) originals.push_back(fd);

  const std::ptrdiff_t before = open_files();
  std::vector<int> sent;
  for (const int fd : originals) sent.push_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  sent.push_back(open("/dev/null", O_RDWR | O_CLOEXEC));  // in the place of a packet socket: it can't be mapped so
  SECTION("with a ring that can't be mapped") {}
  SECTION("with a control block that is too small") { REQUIRE(dup2(sent[0], sent[1]) == sent[1]); }
  CHECK(GuestDevice::create(invitation(terms, sent), 0, 1) == nullptr);
  CHECK(open_files() == before);
}
