#include <catch2/catch.hpp>

#include "tests/conf/loaded.hh"

using namespace mtcp;
using namespace mtcp::conf;
using intercept::Rule;

TEST_CASE("rules keep their order and hold what they match") {
  const Loaded l = load_with(R"(
[[rule]]
match = { role = "listen", address = "10.9.0.0/24", port = "8000-8999", program = "nginx" }
to = "stack"
[[rule]]
match = { role = "connect", port = 443, address = "fd00::/8" }
to = "kernel"
[[rule]]
match.role = "any"
match.address = "10.0.0.1"
to = "stack"
[[rule]]
to = "kernel"
)");
  REQUIRE(l.error == "");
  const auto& r = l.options.rules;
  REQUIRE(r.size() == 4);
  CHECK(r[0].role == Rule::Role::listen);
  CHECK(r[0].has_address);
  CHECK(r[0].address.address == stack::IpAddress::v4(10, 9, 0, 0));
  CHECK(r[0].address.length == 120);
  CHECK(r[0].port_first == 8000);
  CHECK(r[0].port_last == 8999);
  CHECK(r[0].program == "nginx");
  CHECK(r[0].to_stack);
  CHECK(r[1].role == Rule::Role::connect);
  CHECK(r[1].port_first == 443);
  CHECK(r[1].port_last == 443);
  CHECK(r[1].address.length == 8);
  CHECK_FALSE(r[1].to_stack);
  CHECK(r[2].role == Rule::Role::any);
  CHECK(r[2].address.length == 128);
  CHECK(r[3].role == Rule::Role::any);
  CHECK_FALSE(r[3].has_address);
  CHECK(r[3].port_first == 0);
  CHECK(r[3].port_last == 65535);
  CHECK_FALSE(r[3].to_stack);
}

namespace {
struct Wrong {
  const char* text;
  const char* error;
};
}  // namespace

TEST_CASE("a wrong rule is reported with its place and what would be right") {
  const Wrong w = GENERATE(values<Wrong>({
      {"[[rule]]\nmatch = { port = 80 }",
       "2:1: this rule does not say where to: expected to = \"stack\" or \"kernel\""},
      {"[[rule]]\nto = \"nowhere\"", "3:6: to: expected \"stack\" or \"kernel\""},
      {"[[rule]]\nto = \"stack\"\nmatch = { rule = 1 }",
       "4:11: unknown key \"rule\" in a rule (there are: role, address, port, program)"},
      {"[[rule]]\nto = \"stack\"\nport = 80", "4:1: unknown key \"port\" in a rule (there are: to, match)"},
      {"[[rule]]\nto = \"stack\"\nmatch = \"x\"",
       "4:9: match: expected a table like { role = \"listen\", port = \"8000-8999\" }"},
      {"[[rule]]\nto = \"stack\"\nmatch = { role = \"accept\" }",
       "4:18: role: expected \"any\", \"listen\" or \"connect\""},
      {"[[rule]]\nto = \"stack\"\nmatch = { port = 65536 }",
       "4:18: port: expected a port or a range like \"8000-8999\", from 0 to 65535"},
      {"[[rule]]\nto = \"stack\"\nmatch = { port = \"90-80\" }",
       "4:18: port: expected a port or a range like \"8000-8999\", from 0 to 65535"},
      {"[[rule]]\nto = \"stack\"\nmatch = { address = \"10.9.0.1/24\" }",
       "4:21: address: expected an address, or a network without host bits, like \"10.9.0.0/24\""},
      {"[[rule]]\nto = \"stack\"\nmatch = { program = \"\" }",
       "4:21: program: expected the name of a program, or its path; * and ? match"},
      {"[rule]\nto = \"stack\"", "2:1: rules are written as [[rule]], each in brackets of its own"},
      {"rule = [1]", "2:8: rules are written as [[rule]], each in brackets of its own"},
  }));
  INFO(w.text);
  CHECK(load_with(w.text).error == w.error);
}
