// TCP sequence numbers: 32 bits that wrap (RFC 9293 section 3.4).
#pragma once

#include <cstdint>

namespace mtcp::stack {

// A position in sequence space. Ordering is only meaningful between numbers less than 2^31 apart, so there is
// no operator< (it would promise a total order): use before()/after().
class Seq {
 public:
  constexpr Seq() = default;
  constexpr explicit Seq(std::uint32_t value) : value_(value) {}

  [[nodiscard]] constexpr std::uint32_t value() const { return value_; }

  constexpr Seq& operator+=(std::uint32_t n) { return value_ += n, *this; }
  constexpr Seq& operator-=(std::uint32_t n) { return value_ -= n, *this; }
  friend constexpr Seq operator+(Seq s, std::uint32_t n) { return Seq(s.value_ + n); }
  friend constexpr Seq operator-(Seq s, std::uint32_t n) { return Seq(s.value_ - n); }
  // Bytes from `b` up to `a`; the caller knows that a is not before b (or wants the wrapped distance).
  friend constexpr std::uint32_t operator-(Seq a, Seq b) { return a.value_ - b.value_; }
  friend constexpr bool operator==(Seq, Seq) = default;

 private:
  std::uint32_t value_ = 0;
};

[[nodiscard]] constexpr bool before(Seq a, Seq b) { return static_cast<std::int32_t>(a - b) < 0; }
[[nodiscard]] constexpr bool after(Seq a, Seq b) { return before(b, a); }
[[nodiscard]] constexpr bool at_or_before(Seq a, Seq b) { return !after(a, b); }
[[nodiscard]] constexpr bool at_or_after(Seq a, Seq b) { return !before(a, b); }
[[nodiscard]] constexpr Seq later(Seq a, Seq b) { return after(a, b) ? a : b; }
[[nodiscard]] constexpr Seq earlier(Seq a, Seq b) { return before(a, b) ? a : b; }
// start <= s < start + size
[[nodiscard]] constexpr bool in_window(Seq s, Seq start, std::uint32_t size) { return s - start < size; }

}  // namespace mtcp::stack
