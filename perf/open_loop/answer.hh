// What comes back for a request: how much of it belongs to the answer, and whether that is right.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mtcp::perf {

enum class Progress { kMore, kDone, kWrong };

// HTTP/1.1 with a Content-Length, status 2xx.
class HttpAnswer {
 public:
  Progress take(std::string_view bytes) {
    if (!in_body_) {
      head_ += bytes;
      const std::size_t end = head_.find("\r\n\r\n");
      if (end == std::string::npos) return head_.size() > kMostHead ? Progress::kWrong : Progress::kMore;
      if (!read_head(std::string_view(head_).substr(0, end + 2))) return Progress::kWrong;
      bytes = std::string_view(head_).substr(end + 4);
      in_body_ = true;
    }
    if (bytes.size() > left_) return Progress::kWrong;  // nothing was asked for that
    left_ -= bytes.size();
    if (left_ > 0) return Progress::kMore;
    head_.clear();
    in_body_ = false;
    return Progress::kDone;
  }

 private:
  static constexpr std::size_t kMostHead = 16384;

  static bool begins(std::string_view line, std::string_view name) {
    if (line.size() < name.size()) return false;
    for (std::size_t i = 0; i < name.size(); i++)
      if ((line[i] >= 'A' && line[i] <= 'Z' ? line[i] + ('a' - 'A') : line[i]) != name[i]) return false;
    return true;
  }

  bool read_head(std::string_view head) {
    if (!head.starts_with("HTTP/1.1 2")) return false;
    constexpr std::string_view kLength = "content-length:";
    for (std::size_t at = head.find('\n'); at + 1 < head.size(); at = head.find('\n', at + 1)) {
      std::string_view line = head.substr(at + 1);
      if (!begins(line, kLength)) continue;
      line.remove_prefix(kLength.size());
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
      return std::from_chars(line.data(), line.data() + line.size(), left_).ec == std::errc{};
    }
    return false;  // its end would be unknown
  }

  std::string head_;
  std::uint64_t left_ = 0;  // of the body
  bool in_body_ = false;
};

// The very bytes that were sent.
class EchoAnswer {
 public:
  void expect(std::string_view sent) {
    expected_ = sent;
    at_ = 0;
  }
  Progress take(std::string_view bytes) {
    if (std::string_view(expected_).substr(at_, bytes.size()) != bytes) return Progress::kWrong;
    at_ += bytes.size();
    return at_ == expected_.size() ? Progress::kDone : Progress::kMore;
  }

 private:
  std::string expected_;
  std::size_t at_ = 0;
};

}  // namespace mtcp::perf
