#include "intercept/background/filter_file.hh"

#include <utility>

#include "intercept/process.hh"
#include "intercept/support/log.hh"

namespace mtcp::intercept {

bool FilterFile::look_at(const char* path, Version& version) {
  struct stat s{};
  if (::stat(path, &s) != 0) return false;
  version = {s.st_dev, s.st_ino, s.st_size, s.st_ctim.tv_sec, s.st_ctim.tv_nsec};
  return true;
}

void FilterFile::look(stack::Time now) {
  if (read_ == nullptr || now < next_look_ || process_.options.source.empty()) return;
  next_look_ = now + kBetweenLooks;
  Version version;
  if (!look_at(process_.options.source.c_str(), version)) return;
  const bool settled = version == std::exchange(seen_, version);
  // What was read at the start may be older than the first look, and then it is the same rules once more.
  if (!settled || (known_ && version == read_version_)) return;
  read_version_ = version;
  known_ = true;
  take_over();
}

void FilterFile::take_over() {
  std::vector<stack::FilterRule> rules;
  std::string message;
  if (!read_(process_.options.source, rules, message))
    return log(LogLevel::error, "%s: the filter stays as it was", message.c_str());
  const Guard guard(process_, Guard::Everything{});
  if (rules == process_.options.stack.filter) return;
  process_.options.stack.filter = rules;
  process_.for_each_stack([&](Instance& i) { i.worker().set_filter(rules); });
  log(LogLevel::info, "the filter has been read again: %zu rules", rules.size());
}

}  // namespace mtcp::intercept
