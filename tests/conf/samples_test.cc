#include <dirent.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "conf/keys.hh"
#include "conf/reference.hh"
#include "tests/conf/loaded.hh"

using namespace mtcp;
using namespace mtcp::conf;

namespace {

const std::string kFolder = std::string(SOURCE_ROOT) + "/conf/";

std::string contents(const std::string& path) {
  std::ifstream f(path);
  return {std::istreambuf_iterator<char>(f), {}};
}

}  // namespace

TEST_CASE("every sample loads") {
  const char* name = GENERATE("veth", "veth-xdp", "memif-server", "memif-client", "memif-workers-server",
                              "memif-workers-client", "loopback", "pci", "share", "auto");
  intercept::Options o;
  const LoadError error = load(kFolder + name + ".toml", o);
  CHECK(error.message == "");
  CHECK(o.source == kFolder + name + ".toml");
  CHECK((!o.device.port.empty() || o.stack.loopback));
}

TEST_CASE("the memif samples are in pairs the two ends of one wire, or of as many") {
  const bool workers = GENERATE(false, true);
  const std::string name = workers ? "memif-workers-" : "memif-";
  intercept::Options server, client;
  REQUIRE_FALSE(load(kFolder + name + "server.toml", server).failed);
  REQUIRE_FALSE(load(kFolder + name + "client.toml", client).failed);
  CHECK(server.device.is_private());
  CHECK(server.device.is_numbered() == workers);
  CHECK(client.device.queues == server.device.queues);
  CHECK(server.device.port.find("role=server") != std::string::npos);
  std::string other = server.device.port;
  other.replace(other.find("role=server"), 11, "role=client");
  CHECK(client.device.port == other);
  const auto& a = server.stack.interface.addresses.at(0);
  const auto& b = client.stack.interface.addresses.at(0);
  CHECK(a.address != b.address);
  CHECK(stack::Prefix{a.address, a.prefix_length}.contains(b.address));
}

TEST_CASE("conf/mtcp.toml is what the table of keys says (ninja -C build conf-reference writes it)") {
  CHECK(contents(kFolder + "mtcp.toml") == reference());
}

TEST_CASE("the reference with all its keys uncommented loads, and changes nothing but what has no default") {
  std::string text = contents(kFolder + "mtcp.toml");
  for (std::size_t at = 0; (at = text.find("\n#", at)) != std::string::npos; ++at) {
    if (text[at + 2] >= 'a' && text[at + 2] <= 'z') text.erase(at + 1, 1);
  }
  const Loaded l = load_text(text);
  REQUIRE(l.error == "");
  const intercept::Options defaults;
  CHECK(l.options.stack.tcp.rmem.max == defaults.stack.tcp.rmem.max);
  CHECK(l.options.stack.tcp.keepalive_time == defaults.stack.tcp.keepalive_time);
  CHECK(l.options.poll.spin == defaults.poll.spin);
  CHECK(l.options.log_level == defaults.log_level);
  CHECK(l.options.stack.loopback == defaults.stack.loopback);
  for (const Key& k : keys()) {
    INFO(k.section << "." << k.name);
    CHECK(text.find("\n" + std::string(k.name) + " = ") != std::string::npos);
  }
}

TEST_CASE("every configuration file in conf/ is a sample that is tested, or the reference") {
  DIR* folder = opendir(kFolder.c_str());
  REQUIRE(folder != nullptr);
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (!name.ends_with(".toml")) continue;
    INFO(name);
    const std::string known[] = {"veth.toml",
                                 "veth-xdp.toml",
                                 "share.toml",
                                 "auto.toml",
                                 "memif-server.toml",
                                 "memif-client.toml",
                                 "memif-workers-server.toml",
                                 "memif-workers-client.toml",
                                 "loopback.toml",
                                 "pci.toml",
                                 "mtcp.toml"};
    CHECK(std::find(std::begin(known), std::end(known), name) != std::end(known));
  }
  closedir(folder);
}
