// The secrets that outlive a process: who finds the same ones again, and what is not trusted.
#include "intercept/lifetime/lasting.hh"

#include <sys/stat.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "stack/tcp/active/ports.hh"
#include "tests/intercept/fake_kernel.hh"

using namespace mtcp::intercept;
using namespace mtcp::intercept::testing;
using mtcp::stack::Secrets;
namespace fs = std::filesystem;

namespace {

// A directory of this test's own, with a place to keep the secret in.
struct Room {
  Room() {
    std::string name = (fs::temp_directory_path() / "mtcp-lasting-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
    places = {{name, "own"}};
  }
  ~Room() { fs::remove_all(root); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  // What a process that starts now has.
  Secrets load() {
    Secrets s;
    kept = load_lasting(kernel, places, s, usable);
    return s;
  }
  [[nodiscard]] fs::path file() const { return root / "own" / "secret"; }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(root / "own"), fs::directory_iterator()));
  }

  FakeKernel kernel;
  fs::path root;
  std::vector<KeepingPlace> places;
  bool kept = false, usable = false;
};

mode_t mode_of(const fs::path& p) {
  struct stat st{};
  REQUIRE(::lstat(p.c_str(), &st) == 0);
  return st.st_mode & 07777;
}

}  // namespace

TEST_CASE("what is kept is the same at the next start, and for nobody else to read", "[lasting]") {
  Room room;
  const Secrets first = room.load();
  CHECK(room.kept);
  CHECK(room.usable);
  CHECK(mode_of(room.root / "own") == 0700);
  CHECK(mode_of(room.file()) == 0600);
  CHECK(room.files() == 1);  // nothing half made is left
  const Secrets second = room.load();
  CHECK(first.lasting == second.lasting);
  CHECK(first.host == second.host);
  CHECK(first.lasting != std::array<std::uint64_t, 4>{});
  CHECK(first.host != std::array<std::uint64_t, 4>{});
  const std::array<std::uint64_t, 4> none{};
  CHECK(first.key == none);
  Room another;
  CHECK(another.load().lasting != first.lasting);
  CHECK(another.load().host == first.host);
}

TEST_CASE("what one process counts of ports the next one sees", "[lasting]") {
  Room room;
  const Secrets first = room.load();
  REQUIRE(first.port_counters != nullptr);
  first.port_counters->next[5] += 64;
  const Secrets second = room.load();
  REQUIRE(second.port_counters != first.port_counters);
  CHECK(second.port_counters->next[5] == 64);
}

TEST_CASE("processes that start at the same time agree on one secret", "[lasting]") {
  Room room;
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  constexpr int kProcesses = 8;
  for (int i = 0; i < kProcesses; ++i) {
    if (::fork() != 0) continue;
    const Secrets s = room.load();
    const ssize_t n = ::write(ends[1], s.lasting.data(), sizeof s.lasting);
    ::_exit(room.kept && n == sizeof s.lasting ? 0 : 1);
  }
  std::set<std::array<std::uint64_t, 4>> seen;
  for (int i = 0; i < kProcesses; ++i) {
    int status = -1;
    ::wait(&status);
    CHECK(status == 0);
    std::array<std::uint64_t, 4> key{};
    REQUIRE(::read(ends[0], key.data(), sizeof key) == sizeof key);
    seen.insert(key);
  }
  CHECK(seen.size() == 1);
  CHECK(room.files() == 1);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("a secret that others could have read, or that is not whole, is replaced", "[lasting]") {
  Room room;
  const Secrets first = room.load();
  SECTION("readable") { REQUIRE(::chmod(room.file().c_str(), 0644) == 0); }
  SECTION("truncated") { REQUIRE(::truncate(room.file().c_str(), 20) == 0); }
  SECTION("empty") { REQUIRE(::truncate(room.file().c_str(), 0) == 0); }
  SECTION("something else") {
    std::fstream(room.file(), std::ios::in | std::ios::out | std::ios::binary) << "garbage";
  }
  SECTION("a link") {
    fs::rename(room.file(), room.root / "elsewhere");
    fs::create_symlink(room.root / "elsewhere", room.file());
  }
  SECTION("a pipe") {
    fs::remove(room.file());
    REQUIRE(::mkfifo(room.file().c_str(), 0600) == 0);
  }
  const Secrets second = room.load();
  CHECK(room.kept);
  CHECK(second.lasting != first.lasting);
  CHECK(mode_of(room.file()) == 0600);
  CHECK(room.load().lasting == second.lasting);
  CHECK(room.files() == 1);
}

TEST_CASE("a directory in which others can write is not used, nor a link, nor a file", "[lasting]") {
  Room room;
  const fs::path own = room.root / "own";
  SECTION("writable") {
    fs::create_directory(own);
    REQUIRE(::chmod(own.c_str(), 0770) == 0);
  }
  SECTION("a link") {
    fs::create_directory(room.root / "real");
    fs::create_directory_symlink(room.root / "real", own);
  }
  SECTION("a file") { std::ofstream{own} << "x"; }
  SECTION("another user's") {
    if (::geteuid() != 0) return;
    fs::create_directory(own);
    REQUIRE(::chown(own.c_str(), 65534, 65534) == 0);
  }
  const Secrets first = room.load();
  CHECK_FALSE(room.kept);
  CHECK(room.usable);  // a secret for this time only
  CHECK(first.port_counters == nullptr);
  CHECK(room.load().lasting != first.lasting);
  CHECK(room.load().host == first.host);  // timestamps grow all the same
  // The next place serves.
  room.places.push_back({room.root.string(), "second"});
  const Secrets kept = room.load();
  CHECK(room.kept);
  CHECK(room.load().lasting == kept.lasting);
}

TEST_CASE("a place that does not exist, or where nothing can be made, is passed over", "[lasting]") {
  Room room;
  room.places = {{"/nonexistent/anywhere", "own"}, {"/proc", "own"}, {room.root.string(), "own"}};
  const Secrets first = room.load();
  CHECK(room.kept);
  CHECK(room.load().lasting == first.lasting);
}

TEST_CASE("root keeps its secrets where nobody else can write, others under their own number", "[lasting]") {
  CHECK(keeping_places(0).at(0).parent == "/run");
  CHECK(keeping_places(1000).at(0).name == "mtcp-1000");
  CHECK(keeping_places(1001).at(0).name == "mtcp-1001");
}

TEST_CASE("no descriptor stays open", "[lasting]") {
  Room room;
  const auto open_now = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_now();
  for (int i = 0; i < 3; ++i) (void)room.load();
  ::chmod((room.root / "own").c_str(), 0777);
  (void)room.load();
  CHECK(open_now() == before);
}

TEST_CASE("what the names of doors are made of is the same for all programs of a user, and nobody else's", "[lasting]") {
  Room room;
  DoorNonces* const first = load_door_nonces(room.kernel, room.places);
  DoorNonces* const second = load_door_nonces(room.kernel, room.places);
  REQUIRE(first != nullptr);
  REQUIRE(second != nullptr);
  CHECK(first->of[7] == 0);
  first->of[7] = 42;
  CHECK(second->of[7] == 42);
  const fs::path file = room.root / "own" / "doors";
  CHECK(mode_of(file) == 0600);
  CHECK(room.files() == 1);
  fs::permissions(file, fs::perms::others_read, fs::perm_options::add);  // somebody may have had it open
  DoorNonces* const third = load_door_nonces(room.kernel, room.places);
  REQUIRE(third != nullptr);
  CHECK(third->of[7] == 0);
  CHECK(mode_of(file) == 0600);
  CHECK(load_door_nonces(room.kernel, {{room.root / "none", "own"}}) == nullptr);
}
