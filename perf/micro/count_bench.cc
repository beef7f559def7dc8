// Runs one scenario and says how many operations were counted; callgrind says how many instructions they took. Not for
// hand use: perf/instructions runs it.
//   count_bench --list       names, and what an operation is
//   count_bench SCENARIO
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "perf/micro/scenarios.hh"

namespace {

template <typename Visit>
void for_each(Visit&& visit) {
  using namespace mtcp::perf;
  for (const auto& group : {stack_scenarios(), packet_scenarios(), part_scenarios(), socket_scenarios()})
    for (const Scenario& s : group) visit(s);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view word = argc == 2 ? argv[1] : "";
  if (word == "--list") {
    for_each([](const mtcp::perf::Scenario& s) { std::printf("%s\t%s\n", s.name, s.what); });
    return EXIT_SUCCESS;
  }
  const mtcp::perf::Scenario* wanted = nullptr;
  for_each([&](const mtcp::perf::Scenario& s) {
    if (word == s.name) wanted = &s;
  });
  if (wanted == nullptr) {
    std::fprintf(stderr, "usage: count_bench --list | SCENARIO\n");
    return 2;
  }
  const std::uint64_t operations = wanted->run();
  std::printf("operations %llu\n", static_cast<unsigned long long>(operations));
  return operations != 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
