#define CATCH_CONFIG_RUNNER
#include "tests/surroundings.hh"

#include <catch2/catch.hpp>

int main(int argc, char** argv) {
  mtcp::test::set_surroundings();
  return Catch::Session().run(argc, argv);
}
