// What mtcp has to say goes to the standard error that the program was started with, never to what descriptor 2 has
// become since (a data file, as often as not).
#pragma once

namespace mtcp::preload {

// The line "mtcp: ..." Keeps errno.
void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
// The same for what an operator may not want to hear: nothing if MTCP_LOG is "none" or "error".
[[nodiscard]] bool warnings_are_wanted();

// Descriptor 2 may become something else now, or the engine starts: takes a duplicate of the first standard error,
// close-on-exec and out of the way.
void keep_stderr();
// In the child of a fork: whoever reads a pipe or socket would wait for its end as long as a daemon lives, so there is
// no duplicate of those here. Returns the number that is free again; -1: none.
int drop_stderr_in_child();
// Where a line goes: the duplicate, or descriptor 2 if that is still what it was; -1: nowhere.
[[nodiscard]] int notice_descriptor();

}  // namespace mtcp::preload
