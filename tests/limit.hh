// A limit of the process that holds for one thing.
#pragma once

#include <sys/resource.h>

#include <catch2/catch.hpp>

namespace mtcp::test {

// What `body` returns while the limit is so low. It must not check anything: where memory is short, Catch has none either.
template <typename Resource, typename Body>
auto with_limit(Resource resource, rlim_t value, Body body) {
  rlimit before{};
  REQUIRE(getrlimit(resource, &before) == 0);
  const rlimit lowered{.rlim_cur = value, .rlim_max = before.rlim_max};
  const int error = setrlimit(resource, &lowered);
  const auto result = body();
  REQUIRE(setrlimit(resource, &before) == 0);
  REQUIRE(error == 0);
  return result;
}

}  // namespace mtcp::test
