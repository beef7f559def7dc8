// What the engine says without starting: whether a configuration is right, and what was built. For the small program that
// mtcp-run and mtcp-stat ask (preload/check_program.cc), which finds the engine beside itself.
#pragma once

namespace mtcp::intercept {

struct CheckListener {
  void* context;
  void (*problem)(void* context, const char* text);                  // "file:line:column: what is wrong"
  void (*fact)(void* context, const char* name, const char* value);  // what the configuration says
};

// Reads the configuration, tells of all that is wrong with it, and looks whether the device could be opened by this
// process, without opening it. The status with which a server would end: 0, 69 (it could not be opened) or 78.
using EngineCheck = int (*)(const char* path, const CheckListener* listener);
inline constexpr const char* kEngineCheckName = "mtcp_engine_check";

// "0.1.0 (buildtype=release ...)"
using EngineVersion = const char* (*)();
inline constexpr const char* kEngineVersionName = "mtcp_engine_version";

}  // namespace mtcp::intercept
