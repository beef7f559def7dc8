// Ethernet addresses of neighbours as the kernel knows them: on an interface that it has as well, what ARP says reaches it alone.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stack/base/time.hh"
#include "stack/wire/address.hh"

namespace mtcp::stack::dpdk {

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
  // What has been found of that by now, each once.
  bool next(Answer& answer, Time now);
  [[nodiscard]] bool waiting() const { return !wanted_.empty(); }

 private:
  // As long as Linux asks for a neighbour that does not answer.
  static constexpr Duration kPatience = seconds(3), kAgain = milliseconds(1);
  struct Wanted {
    Answer answer;
    Time until{};
    bool asked = false;  // the kernel has been made to find out
  };
  bool look_up(Answer& answer) const;
  void make_kernel_ask(std::uint32_t address) const;

  const std::string interface_;
  std::vector<Wanted> wanted_;
  Time next_look_{};
};

}  // namespace mtcp::stack::dpdk
