#include "stack/tcp/sender/controls.hh"

#include <array>

namespace mtcp::stack {

namespace {

constexpr std::size_t kCount = 4;

}  // namespace

std::span<const CongestionControl* const> all_congestion_controls() {
  static const std::array<const CongestionControl*, kCount> all{&cubic(), &reno(), &bbr(), &dctcp()};
  return all;
}

const CongestionControl* find_congestion_control(std::string_view name) {
  for (const CongestionControl* cc : all_congestion_controls())
    if (name == cc->name()) return cc;
  return nullptr;
}

const CongestionControl& configured_congestion_control(std::string_view name) {
  const CongestionControl* cc = find_congestion_control(name);
  return cc != nullptr ? *cc : cubic();
}

std::span<const char* const> congestion_control_names() {
  static const auto names = [] {
    std::array<const char*, kCount> n{};
    for (std::size_t i = 0; i < kCount; ++i) n[i] = all_congestion_controls()[i]->name();
    return n;
  }();
  return names;
}

}  // namespace mtcp::stack
