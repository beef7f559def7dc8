#include "stack/port/dpdk/interface/card_lock.hh"

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/port/process.hh"

using mtcp::stack::dpdk::CardLock;
using mtcp::stack::dpdk::full_pci_address;
using mtcp::test::Process;

namespace {

struct Directory {
  Directory() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path = "/tmp/mtcp-card-lock-XXXXXX";
};

}  // namespace

TEST_CASE("a PCI address is known with and without its domain and arguments") {
  CHECK(full_pci_address("03:00.0") == "0000:03:00.0");
  CHECK(full_pci_address("0001:03:00.1") == "0001:03:00.1");
  CHECK(full_pci_address("03:00.0,a=b") == "0000:03:00.0");
}

TEST_CASE("a card is for one program at a time, however its address is written") {
  const Directory run;
  std::string message;
  {
    CardLock first(run.path);
    REQUIRE(first.take("0000:03:00.0", message));
    CardLock other_card(run.path);
    CHECK(other_card.take("0000:03:00.1", message));
    CHECK(message.empty());
    CardLock second(run.path);
    CHECK_FALSE(second.take("03:00.0,a=b", message));
    CHECK(message.find("0000:03:00.0 is in use") != std::string::npos);
  }
  CardLock again(run.path);
  CHECK(again.take("0000:03:00.0", message));
}

TEST_CASE("a child of a fork holds its parent's card until it ends") {
  const Directory run;
  std::string message;
  auto lock = std::make_unique<CardLock>(run.path);
  REQUIRE(lock->take("0000:03:00.0", message));
  Process child([](Process& parent) {
    parent.tell();
    (void)parent.wait();
  });
  REQUIRE(child.wait());
  lock.reset();
  CHECK_FALSE(CardLock(run.path).take("0000:03:00.0", message));
  child.kill_hard();
  CHECK(CardLock(run.path).take("0000:03:00.0", message));
}

TEST_CASE("without a place for the lock the card is not refused") {
  std::string message;
  CardLock lock("/nonexistent");
  CHECK(lock.take("0000:03:00.0", message));
  CHECK(message.empty());
}
