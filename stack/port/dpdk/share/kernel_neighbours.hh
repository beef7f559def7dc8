// Ethernet addresses of neighbours as the kernel knows them: on an interface that it has as well, what ARP says reaches it alone.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "stack/base/time.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack::dpdk {

class Descriptor;

class KernelNeighbours {
 public:
  explicit KernelNeighbours(std::string interface) : interface_(std::move(interface)) {}

  struct Answer {
    std::uint32_t address = 0;  // IPv4, host order
    std::uint32_t asked_by = 0;
    MacAddress mac;
  };
  // `address` is wanted, by one of ours. What the kernel does not know it is made to find out.
  void ask(std::uint32_t address, std::uint32_t asked_by, Time now);
  // What has been found of that by now, each once, is appended.
  void look(std::deque<Answer>& found, Time now);
  [[nodiscard]] bool waiting() const { return !wanted_.empty(); }

 private:
  // As long as Linux asks for a neighbour that does not answer.
  static constexpr Duration kPatience = seconds(3);
  // Looks at one that is not known yet come less and less often.
  static constexpr Duration kAtFirst = milliseconds(1), kAtLast = milliseconds(64);
  static constexpr std::size_t kMost = 1024;  // as many as a stack knows
  struct Wanted {
    Answer answer;
    Time until{}, next_look{};
    Duration pause = kAtFirst;
    bool asked = false;  // the kernel has been made to find out
  };
  bool look_up(const Descriptor& kernel, std::uint32_t interface, Wanted& wanted) const;
  void make_kernel_ask(std::uint32_t address) const;

  const std::string interface_;
  std::vector<Wanted> wanted_;
};

}  // namespace mtcp::stack::dpdk
