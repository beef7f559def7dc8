#include "intercept/lifetime/program.hh"

#include <catch2/catch.hpp>

#include "intercept/sockets/route.hh"

using namespace mtcp::intercept;
using Names = std::vector<std::string>;

namespace {

bool matches(const Program& program, const std::string& pattern) {
  Options o;
  o.stack.interface.addresses.push_back({mtcp::stack::IpAddress::v4(10, 9, 0, 2), 120});
  Rule rule;
  rule.program = pattern;
  rule.to_stack = false;
  o.rules = {rule};
  return !Router(o, program).may_use_stack();
}

}  // namespace

TEST_CASE("a program that is a link to another has both names, and the link's first") {
  const Program p = program_of({.binary = "/usr/bin/redis-check-rdb",
                                .called = "/usr/bin/redis-server",
                                .arguments = {"/usr/bin/redis-server", "--port", "7"},
                                .comm = "redis-server"});
  CHECK(p.names == Names{"redis-server", "redis-check-rdb"});
  CHECK(matches(p, "redis-server"));
  CHECK(matches(p, "redis-check-rdb"));
  CHECK(matches(p, "/usr/bin/redis-s*"));
  CHECK(matches(p, "/usr/bin/redis-check-rdb"));
  CHECK_FALSE(matches(p, "redis"));
  CHECK_FALSE(matches(p, "/usr/sbin/redis-server"));
}

TEST_CASE("a script is known by its own name, however it was started") {
  // "#!/usr/bin/python3", called as a program: the kernel names the script
  const Program called = program_of({.binary = "/usr/bin/python3.11",
                                     .called = "/bin/sh",
                                     .arguments = {"/usr/bin/python3", "/bin/sh"},
                                     .comm = "sh"});
  CHECK(called.names.front() == "sh");
  CHECK(matches(called, "python3"));
  CHECK(matches(called, "python3.11"));
  // python3 -W error SCRIPT: "error" is no file
  const Program argument = program_of({.binary = "/usr/bin/python3.11",
                                       .called = "/usr/bin/python3",
                                       .arguments = {"python3", "-W", "error", "/bin/sh", "/bin/cat"},
                                       .comm = "python3"});
  CHECK(argument.names.front() == "sh");
  CHECK(matches(argument, "/bin/sh"));
  CHECK_FALSE(matches(argument, "cat"));
  const Program module = program_of({.binary = "/usr/bin/python3.11",
                                     .called = "/usr/bin/python3",
                                     .arguments = {"python3", "-m", "http.server"},
                                     .comm = "python3"});
  CHECK(module.names.front() == "http.server");
  const Program text = program_of({.binary = "/usr/bin/python3.11",
                                   .called = "/usr/bin/python3",
                                   .arguments = {"python3", "-c", "/bin/sh"},
                                   .comm = "python3"});
  CHECK(text.names == Names{"python3", "python3.11"});
}

TEST_CASE("a file among the arguments of what is no interpreter is not its name") {
  const Program p = program_of(
      {.binary = "/usr/bin/curl", .called = "/usr/bin/curl", .arguments = {"curl", "/bin/sh"}, .comm = "curl"});
  CHECK(p.names == Names{"curl"});
}

TEST_CASE("argv[0], comm and a relative path count as well") {
  const Program p = program_of({.binary = "/usr/sbin/nginx",
                                .called = "/usr/sbin/nginx",
                                .arguments = {"nginx: worker process"},
                                .comm = "web"});
  CHECK(p.names == Names{"nginx", "web"});
  const Program login = program_of(
      {.binary = "/usr/bin/bash", .called = "/usr/bin/bash", .arguments = {"-other"}, .comm = "bash"});
  CHECK(matches(login, "other"));
  CHECK(program_of({}).names.empty());
  CHECK_FALSE(matches(program_of({}), "x"));
  CHECK_FALSE(this_program().names.empty());
  CHECK(matches(this_program(), "intercept_test"));
}
