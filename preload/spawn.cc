// posix_spawn, and libc's functions that are made of it: the child is made and becomes another program inside libc, by
// system calls of its own, and this process goes on. The engine is told what the child does with its descriptors.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "preload/calls.hh"
#include "preload/edge.hh"
#include "preload/inherited.hh"

namespace mtcp::preload {
namespace {

using intercept::SpawnAction;

// libc keeps file actions to itself, so they are remembered here, too, by the address of their object.
struct Actions {
  const posix_spawn_file_actions_t* of;
  Actions* next;
  size_t count, room;
  SpawnAction* list;
};

Actions* all_actions;

// Where the pointer to the record is: the last one's is null. With the lock held.
Actions** find(const posix_spawn_file_actions_t* fa) {
  Actions** at = &all_actions;
  while (*at != nullptr && (*at)->of != fa) at = &(*at)->next;
  return at;
}

void forget(const posix_spawn_file_actions_t* fa) {
  pthread_mutex_lock(&process.lock);
  Actions** at = find(fa);
  Actions* old = *at;
  if (old != nullptr) *at = old->next;
  pthread_mutex_unlock(&process.lock);
  if (old == nullptr) return;
  free(old->list);
  free(old);
}

// 0 or ENOMEM.
int remember(const posix_spawn_file_actions_t* fa, const SpawnAction& action) {
  if (engine() == nullptr && !has_configuration()) return 0;
  pthread_mutex_lock(&process.lock);
  Actions** at = find(fa);
  if (*at == nullptr && (*at = static_cast<Actions*>(calloc(1, sizeof(Actions)))) != nullptr) (*at)->of = fa;
  Actions* a = *at;
  if (a != nullptr && a->count == a->room) {
    const size_t room = a->room + 8;
    auto* list = static_cast<SpawnAction*>(realloc(a->list, room * sizeof(SpawnAction)));
    if (list != nullptr) {
      a->list = list;
      a->room = room;
    }
  }
  const bool fits = a != nullptr && a->count < a->room;
  if (fits) a->list[a->count++] = action;
  pthread_mutex_unlock(&process.lock);
  return fits ? 0 : ENOMEM;
}

// A copy, which the caller frees; `count` is 0 if there are none, or no memory for them.
SpawnAction* copy_of(const posix_spawn_file_actions_t* fa, size_t& count) {
  count = 0;
  SpawnAction* copy = nullptr;
  pthread_mutex_lock(&process.lock);
  if (const Actions* a = fa != nullptr ? *find(fa) : nullptr; a != nullptr && a->count > 0) {
    copy = static_cast<SpawnAction*>(malloc(a->count * sizeof(SpawnAction)));
    if (copy != nullptr) {
      memcpy(copy, a->list, a->count * sizeof(SpawnAction));
      count = a->count;
    }
  }
  pthread_mutex_unlock(&process.lock);
  return copy;
}

// Calls `real` with the engine told before and after; `made` says of its result whether there is a child.
template <class F, class Made>
auto spawn_by(const SpawnAction* actions, size_t count, bool for_long, F real, Made made) {
  intercept::Start* start = nullptr;
  {
    Inside inside;
    start = engine()->before_spawn(actions, count, for_long);
  }
  const auto result = real();
  const int why = errno;
  {
    Inside inside;
    engine()->after_spawn(start, made(result));
  }
  errno = why;
  return result;
}

template <class F>
int posix_spawn_by(const posix_spawn_file_actions_t* fa, char* const* envp, F real) {
  if (engine() == nullptr || thread.inside()) return real(envp);
  const Environment environment(envp);
  size_t count = 0;
  SpawnAction* actions = copy_of(fa, count);
  const int result = spawn_by(actions, count, false, [&] { return real(environment.get()); }, [](int error) { return error == 0; });
  free(actions);
  return result;
}

}  // namespace

namespace always {

int posix_spawn_file_actions_init(posix_spawn_file_actions_t* fa) {
  forget(fa);  // of an object that was never destroyed
  return next.posix_spawn_file_actions_init(fa);
}
int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t* fa) {
  forget(fa);
  return next.posix_spawn_file_actions_destroy(fa);
}
int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t* fa, int fd, int to) {
  const int error = next.posix_spawn_file_actions_adddup2(fa, fd, to);
  return error != 0 ? error : remember(fa, {SpawnAction::Kind::dup2, fd, to});
}
int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t* fa, int fd) {
  const int error = next.posix_spawn_file_actions_addclose(fa, fd);
  return error != 0 ? error : remember(fa, {SpawnAction::Kind::close, fd, -1});
}
int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t* fa, int fd, const char* path, int flags, mode_t mode) {
  const int error = next.posix_spawn_file_actions_addopen(fa, fd, path, flags, mode);
  return error != 0 ? error : remember(fa, {SpawnAction::Kind::close, fd, -1});
}
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t* fa, int from) {
  const int error = next.posix_spawn_file_actions_addclosefrom_np(fa, from);
  return error != 0 ? error : remember(fa, {SpawnAction::Kind::close_from, from, -1});
}

int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* fa,
                const posix_spawnattr_t* at, char* const* argv, char* const* envp) {
  return posix_spawn_by(fa, envp, [=](char* const* e) { return next.posix_spawn(pid, path, fa, at, argv, e); });
}
int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* fa,
                 const posix_spawnattr_t* at, char* const* argv, char* const* envp) {
  return posix_spawn_by(fa, envp, [=](char* const* e) { return next.posix_spawnp(pid, file, fa, at, argv, e); });
}

int system(const char* command) {
  if (engine() == nullptr || thread.inside() || command == nullptr) return next.system(command);
  return spawn_by(nullptr, 0, true, [=] { return next.system(command); }, [](int) { return true; });
}

FILE* popen(const char* command, const char* mode) {
  if (engine() == nullptr || thread.inside()) return next.popen(command, mode);
  // The pipe takes the place of one of the child's standard streams.
  const SpawnAction pipe{SpawnAction::Kind::close, mode != nullptr && strchr(mode, 'w') != nullptr ? 0 : 1, -1};
  return spawn_by(&pipe, 1, false, [=] { return next.popen(command, mode); }, [](FILE* f) { return f != nullptr; });
}

}  // namespace always
}  // namespace mtcp::preload
