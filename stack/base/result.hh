// A value or the reason why there is none.
#pragma once

#include <cassert>
#include <utility>

#include "stack/base/errc.hh"

namespace mtcp::stack {

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit by design
  Result(Errc error) : error_(error) { assert(error != Errc::ok); }  // NOLINT: implicit by design

  explicit operator bool() const { return error_ == Errc::ok; }
  [[nodiscard]] Errc error() const { return error_; }
  T& operator*() { return assert(*this), value_; }
  const T& operator*() const { return assert(*this), value_; }
  T* operator->() { return assert(*this), &value_; }

 private:
  T value_{};
  Errc error_ = Errc::ok;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Errc error) : error_(error) {}  // NOLINT: implicit by design

  explicit operator bool() const { return error_ == Errc::ok; }
  [[nodiscard]] Errc error() const { return error_; }

 private:
  Errc error_ = Errc::ok;
};

}  // namespace mtcp::stack
