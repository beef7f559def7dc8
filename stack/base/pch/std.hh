// Compiled once for each library, ahead of its files: parsing these took more than half of a file's time. They are headers of the
// standard library only, so that no change of ours compiles everything anew; each file still includes what it uses, and
// scripts/package, which does without, shows it.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
