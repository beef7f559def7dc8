#include <catch2/catch.hpp>

#include "tests/conf/loaded.hh"

using namespace mtcp;
using namespace mtcp::conf;
using Action = stack::FilterRule::Action;

TEST_CASE("filters keep their order and hold what they match") {
  const Loaded l = load_with(R"(
[[filter]]
source = "10.9.0.0/24"
port = "80-443"
action = "accept"
rate = 100
[[filter]]
source = "fd00::/8"
port = 22
action = "reset"
[[filter]]
action = "drop"
)");
  REQUIRE(l.error == "");
  const auto& f = l.options.stack.filter;
  REQUIRE(f.size() == 3);
  CHECK(f[0].source.address == stack::IpAddress::v4(10, 9, 0, 0));
  CHECK(f[0].source.length == 120);
  CHECK(f[0].port_first == 80);
  CHECK(f[0].port_last == 443);
  CHECK(f[0].action == Action::accept);
  CHECK(f[0].rate == 100);
  CHECK(f[1].source.length == 8);
  CHECK(f[1].port_first == 22);
  CHECK(f[1].port_last == 22);
  CHECK(f[1].action == Action::reset);
  CHECK(f[2].source.length == 0);
  CHECK(f[2].port_first == 0);
  CHECK(f[2].port_last == 65535);
  CHECK(f[2].action == Action::drop);
  CHECK(f[2].rate == 0);
}

namespace {
struct Wrong {
  const char* text;
  const char* error;
};
}  // namespace

TEST_CASE("a wrong filter is reported with its place and what would be right") {
  const Wrong w = GENERATE(values<Wrong>({
      {"[[filter]]\nport = 80", "2:1: this filter does not say what to do: expected action = \"accept\", \"drop\" or \"reset\""},
      {"[[filter]]\naction = \"deny\"", "3:10: action: expected \"accept\", \"drop\" or \"reset\""},
      {"[[filter]]\naction = 1", "3:10: action: expected \"accept\", \"drop\" or \"reset\""},
      {"[[filter]]\naction = \"drop\"\naddress = \"10.0.0.1\"",
       "4:1: unknown key \"address\" in a filter (there are: source, port, action, rate)"},
      {"[[filter]]\naction = \"drop\"\nsource = \"10.9.0.1/24\"",
       "4:10: source: expected an address, or a network without host bits, like \"10.9.0.0/24\""},
      {"[[filter]]\naction = \"drop\"\nport = 65536", "4:8: port: expected a port or a range like \"8000-8999\", from 0 to 65535"},
      {"[[filter]]\naction = \"drop\"\nport = \"90-80\"", "4:8: port: expected a port or a range like \"8000-8999\", from 0 to 65535"},
      {"[[filter]]\naction = \"accept\"\nrate = 0",
       "4:8: rate: expected a whole number from 1 to 1000000: new connections a second of each source"},
      {"[[filter]]\naction = \"accept\"\nrate = \"100\"",
       "4:8: rate: expected a whole number from 1 to 1000000: new connections a second of each source"},
      {"[[filter]]\naction = \"drop\"\nrate = 10", "4:8: rate: only a filter that accepts has one"},
      {"[[filter]]\nport = \"1-100\"\naction = \"drop\"\n[[filter]]\nsource = \"10.0.0.0/8\"\nport = 80\naction = \"accept\"",
       "5:1: this filter never takes effect: an earlier one matches all that it does"},
      {"[filter]\naction = \"drop\"", "2:1: filters are written as [[filter]], each in brackets of its own"},
      {"filter = [1]", "2:10: filters are written as [[filter]], each in brackets of its own"},
      {"[[filtre]]\naction = \"drop\"", "2:3: unknown section [filtre] (did you mean \"filter\"?)"},
  }));
  CAPTURE(w.text);
  const Loaded l = load_with(w.text);
  CHECK(l.failed);
  CHECK(l.error == w.error);
}
