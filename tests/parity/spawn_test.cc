// A connection that is handed to a program by posix_spawn, and by libc's functions that are made of it.
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>

#include <thread>

#include "tests/parity/child.hh"

using namespace parity;

extern char** environ;

namespace {

class Actions {
 public:
  Actions() { REQUIRE(::posix_spawn_file_actions_init(&actions_) == 0); }
  ~Actions() { ::posix_spawn_file_actions_destroy(&actions_); }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;
  void dup2(int from, int to) { REQUIRE(::posix_spawn_file_actions_adddup2(&actions_, from, to) == 0); }
  void close(int fd) { REQUIRE(::posix_spawn_file_actions_addclose(&actions_, fd) == 0); }
  void close_from(int fd) { REQUIRE(::posix_spawn_file_actions_addclosefrom_np(&actions_, fd) == 0); }
  void open(int fd, const char* path) {
    REQUIRE(::posix_spawn_file_actions_addopen(&actions_, fd, path, O_RDWR, 0) == 0);
  }
  [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

pid_t spawn(const posix_spawn_file_actions_t* actions, std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = -1;
  REQUIRE(::posix_spawnp(&child, argv[0], actions, nullptr, argv.data(), environ) == 0);
  return child;
}

// A program that has the connection as descriptor `fd`: a line each way.
std::vector<std::string> talker(int fd) {
  const std::string n = std::to_string(fd);
  return {"bash", "-c", "read line <&" + n + "; echo \"got $line\" >&" + n};
}

void talk_to(pid_t child, Pair& pair) {
  pair.server.reset();
  REQUIRE(send_all(pair.client, "this\n"));
  const std::string got = receive_until_end(pair.client);
  REQUIRE(wait_for_child(child) == 0);
  REQUIRE(got == "got this\n");
}

}  // namespace

TEST_CASE("spawn: a program gets the connection as its standard streams", "[spawn]") {
  Pair pair = connected_pair();
  REQUIRE(send_all(pair.client, "early "));
  Actions actions;
  actions.dup2(pair.server, 0);
  actions.dup2(pair.server, 1);
  const pid_t child = spawn(actions.get(), {"cat"});
  pair.server.reset();
  REQUIRE(receive_exactly(pair.client, 6) == "early ");
  REQUIRE(send_all(pair.client, "meow"));
  REQUIRE(receive_exactly(pair.client, 4) == "meow");
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(ends(pair.client));
  REQUIRE(wait_for_child(child) == 0);
}

TEST_CASE("spawn: adddup2 of a number onto itself passes it on", "[spawn]") {
  Pair pair = connected_pair();
  Actions actions;
  actions.dup2(pair.server, pair.server);
  talk_to(spawn(actions.get(), talker(pair.server)), pair);
}

TEST_CASE("spawn: a connection without FD_CLOEXEC is inherited", "[spawn]") {
  Pair pair = connected_pair();
  REQUIRE(::fcntl(pair.server, F_SETFD, 0) == 0);
  talk_to(spawn(nullptr, talker(pair.server)), pair);
}

TEST_CASE("spawn: actions are followed from one number to the next", "[spawn]") {
  Pair pair = connected_pair();
  Actions actions;
  actions.dup2(pair.server, 190);
  actions.open(pair.server, "/dev/null");
  actions.dup2(190, 191);
  actions.close(190);
  talk_to(spawn(actions.get(), talker(191)), pair);
}

TEST_CASE("spawn: a program sees a reset as an error, not as the end of what it reads", "[spawn]") {
  Pair pair = connected_pair();
  Actions actions;
  actions.dup2(pair.server, 0);
  actions.open(1, "/dev/null");
  actions.open(2, "/dev/null");
  const pid_t child = spawn(actions.get(), {"cat"});
  pair.server.reset();
  REQUIRE(send_all(pair.client, "half a file"));
  set_option(pair.client, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
  pair.client.reset();
  REQUIRE(wait_for_child(child) == 1);
}

TEST_CASE("spawn: what the actions close again the program does not have", "[spawn]") {
  Pair pair = connected_pair();
  REQUIRE(::fcntl(pair.server, F_SETFD, 0) == 0);
  Actions actions;
  int way[2];
  REQUIRE(::pipe2(way, O_CLOEXEC) == 0);
  actions.dup2(way[0], 0);
  actions.dup2(pair.server, 500);
  actions.close_from(3);
  const pid_t child = spawn(actions.get(), {"sh", "-c", "read line; test ! -e /proc/self/fd/500"});
  ::close(way[0]);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
  pair.server.reset();
  REQUIRE(ends(pair.client));  // while the program runs
  REQUIRE(::write(way[1], "\n", 1) == 1);
  REQUIRE(wait_for_child(child) == 0);
  ::close(way[1]);
}

TEST_CASE("spawn: that fails leaves the connection as it was", "[spawn]") {
  const Pair pair = connected_pair();
  Actions actions;
  actions.dup2(pair.server, 0);
  char name[] = "nothing";
  char* const argv[] = {name, nullptr};
  pid_t child = -1;
  REQUIRE(::posix_spawn(&child, "/nonexistent/program", actions.get(), nullptr, argv, environ) == ENOENT);
  REQUIRE(::fcntl(pair.server, F_GETFD) == FD_CLOEXEC);
  REQUIRE(send_all(pair.client, "still"));
  REQUIRE(receive_exactly(pair.server, 5) == "still");
  REQUIRE(send_all(pair.server, "here"));
  REQUIRE(receive_exactly(pair.client, 4) == "here");
}

TEST_CASE("spawn: the program and this process both write", "[spawn]") {
  Pair pair = connected_pair();
  Actions actions;
  actions.dup2(pair.server, 1);
  REQUIRE(send_all(pair.server, "1"));
  REQUIRE(wait_for_child(spawn(actions.get(), {"printf", "2"})) == 0);
  REQUIRE(send_all(pair.server, "3"));
  REQUIRE(wait_for_child(spawn(actions.get(), {"printf", "4"})) == 0);
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "1234");
}

TEST_CASE("spawn: other threads use the connection meanwhile", "[spawn]") {
  Pair pair = connected_pair();
  const std::string much = pattern(4 << 20, 5);
  std::thread writer([&] { (void)send_all(pair.server, much); });
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.client, much.size()); });
  std::vector<pid_t> children;
  Actions actions;
  actions.dup2(pair.server, 77);
  char name[] = "nothing";
  char* const argv[] = {name, nullptr};
  for (int i = 0; i < 5; ++i) {
    pid_t none = -1;
    REQUIRE(::posix_spawn(&none, "/nonexistent/program", actions.get(), nullptr, argv, environ) == ENOENT);
  }
  for (int i = 0; i < 5; ++i) children.push_back(spawn(actions.get(), {"true"}));
  writer.join();
  reader.join();
  REQUIRE((got == much));
  for (const pid_t child : children) REQUIRE(wait_for_child(child) == 0);
}

TEST_CASE("spawn: several threads start programs with the same connection", "[spawn]") {
  Pair pair = connected_pair();
  Actions actions;
  actions.dup2(pair.server, 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 3; ++k) (void)wait_for_child(spawn(actions.get(), {"printf", "x"}));
    });
  }
  for (std::thread& t : threads) t.join();
  pair.server.reset();
  REQUIRE(receive_until_end(pair.client) == "xxxxxxxxxxxx");
}

TEST_CASE("spawn: a child of a fork starts a program with its parent's connection", "[spawn]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    Actions actions;
    actions.dup2(pair.server, 0);
    actions.dup2(pair.server, 1);
    return wait_for_child(spawn(actions.get(), {"cat"}));
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "purr"));
  ::shutdown(pair.client, SHUT_WR);
  REQUIRE(receive_until_end(pair.client) == "purr");
  REQUIRE(child.wait() == 0);
}

TEST_CASE("spawn: system and popen write to a connection that is standard output", "[spawn]") {
  Pair pair = connected_pair();
  Child child([&] {
    pair.client.reset();
    ::dup2(pair.server, 0);
    ::dup2(pair.server, 1);
    pair.server.reset();
    if (::system("echo one") != 0) return 1;
    FILE* f = ::popen("cat", "w");
    if (f == nullptr || ::fputs("two\n", f) < 0 || ::pclose(f) != 0) return 2;
    f = ::popen("read line; echo $line", "r");  // from the connection
    char line[32] = {};
    if (f == nullptr || ::fgets(line, sizeof line, f) == nullptr || ::pclose(f) != 0) return 3;
    return ::system(("echo " + std::string(line)).c_str());
  });
  pair.server.reset();
  REQUIRE(send_all(pair.client, "three\n"));
  const std::string got = receive_until_end(pair.client);
  REQUIRE(child.wait() == 0);
  REQUIRE(got == "one\ntwo\nthree\n");
}

TEST_CASE("spawn: system passes on what this process itself has accepted", "[spawn]") {
  Pair pair = connected_pair();
  REQUIRE(::fcntl(pair.server, F_SETFD, 0) == 0);
  const std::string n = std::to_string(pair.server);
  std::string got;
  std::thread reader([&] { got = receive_exactly(pair.client, 4); });  // while the command runs
  const int status = ::system(("bash -c 'echo abc >&" + n + "'").c_str());
  reader.join();
  REQUIRE(status == 0);
  REQUIRE(got == "abc\n");
  REQUIRE(send_all(pair.server, "here"));
  REQUIRE(receive_exactly(pair.client, 4) == "here");
}
