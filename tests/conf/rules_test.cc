#include <catch2/catch.hpp>

#include "tests/conf/loaded.hh"

using namespace mtcp;
using namespace mtcp::conf;
using intercept::Rule;

TEST_CASE("rules keep their order and hold what they match") {
  const Loaded l = load_with(R"(
[interface]
address = ["10.9.0.2/24"]
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

TEST_CASE("a rule to the stack that can never take effect is an error") {
  const std::string interface = "[interface]\naddress = [\"10.9.0.2/24\"]\n";
  const auto rule = [](const char* match) { return std::string("[[rule]]\nmatch = { ") + match + " }\nto = \"stack\"\n"; };
  const Wrong w = GENERATE(values<Wrong>({
      {"role = \"connect\", address = \"127.0.0.1\"",
       "5:6: this rule can't be honoured: 127.0.0.1 is the kernel's: expected loopback = true in [stack]"},
      {"address = \"127.0.0.0/8\"",
       "5:6: this rule can't be honoured: 127.0.0.0/8 is the kernel's: expected loopback = true in [stack]"},
      {"address = \"::1\"", "5:6: this rule can't be honoured: ::1 is the kernel's: expected loopback = true in [stack]"},
      {"role = \"listen\", address = \"10.9.0.3\"",
       "5:6: this rule can't be honoured: 10.9.0.3 is no address of the stack: nothing can listen there but on an address of "
       "[interface]"},
      {"role = \"connect\", address = \"239.1.0.0/16\"",
       "5:6: this rule can't be honoured: 239.1.0.0/16: nobody connects to multicast or broadcast by TCP"},
      {"role = \"connect\", address = \"fd00::/8\"",
       "5:6: this rule can't be honoured: fd00::/8 is out of reach: no address of that family in [interface]"},
  }));
  INFO(w.text);
  CHECK(load_text(interface + rule(w.text)).error == w.error);
}

TEST_CASE("a rule to the stack that may take effect is taken") {
  const std::string interface = "[interface]\naddress = [\"10.9.0.2/24\"]\n";
  const char* match = GENERATE("role = \"listen\", address = \"10.9.0.0/24\"", "role = \"listen\", address = \"0.0.0.0\"",
                               "role = \"listen\", address = \"::\"", "address = \"10.0.0.0/8\"",
                               "role = \"connect\", address = \"192.0.2.1\"", "role = \"connect\", address = \"0.0.0.0/0\"");
  INFO(match);
  const std::string rule = std::string("[[rule]]\nmatch = { ") + match + " }\nto = \"stack\"\n";
  CHECK(load_text(interface + rule).error == "");
  const std::string loopback = "[[rule]]\nmatch = { address = \"127.0.0.1\" }\nto = \"stack\"\n[stack]\nloopback = true\n";
  CHECK(load_text(interface + loopback).error == "");
  CHECK(load_text(interface + "[[rule]]\nmatch = { address = \"127.0.0.1\" }\nto = \"kernel\"\n").error == "");
}
