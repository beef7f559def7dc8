// splice from a pipe that others use at the same time.
#include <catch2/catch.hpp>

#include "tests/intercept/bench.hh"

using namespace mtcp;
using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;

namespace {

struct Pipe {
  Pipe() { REQUIRE(::pipe(ends) == 0); }
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  void put(const char* text) const { REQUIRE(::write(ends[1], text, std::strlen(text)) == static_cast<ssize_t>(std::strlen(text))); }
  int ends[2];
};

}  // namespace

TEST_CASE("splice does not wait, with everybody else, for bytes that another reader of the pipe has taken") {
  Bench b;
  const auto p = b.pair();
  const Pipe pipe;
  pipe.put("taken");
  b.kernel.after_ioctl = [&] {  // it has just been told that there are five bytes
    char text[5];
    REQUIRE(::read(pipe.ends[0], text, sizeof text) == 5);
  };
  CHECK(b->splice(pipe.ends[0], nullptr, p.client, nullptr, 100, SPLICE_F_NONBLOCK) == -EAGAIN);
  pipe.put("mine");
  CHECK(b->splice(pipe.ends[0], nullptr, p.client, nullptr, 100, SPLICE_F_NONBLOCK) == 4);
  b.settle();
  CHECK(b.recv(p.server) == "mine");
}

TEST_CASE("splice sees what a writer puts into an empty pipe just before it closes it") {
  Bench b;
  const auto p = b.pair();
  Pipe pipe;
  b.kernel.after_ioctl = [&] {  // it has just been told that there is nothing
    pipe.put("last words");
    ::close(std::exchange(pipe.ends[1], -1));
  };
  CHECK(b->splice(pipe.ends[0], nullptr, p.client, nullptr, 100, 0) == 10);
  CHECK(b->splice(pipe.ends[0], nullptr, p.client, nullptr, 100, 0) == 0);
  b.settle();
  CHECK(b.recv(p.server) == "last words");
}
