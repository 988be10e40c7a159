#pragma once

#include <concepts>
#include <optional>

namespace rtlynx {

/// a + b, or nothing where the type cannot hold it. Every size that comes from a file or a user is computed with
/// these: the loaders of other engines were broken by products that wrapped around before they were compared.
template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b) {
  T sum{};
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

/// a * b, or nothing where the type cannot hold it.
template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) {
  T product{};
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// `value` rounded up to a multiple of `step` (> 0, value >= 0), or nothing where the type cannot hold it.
template <std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_round_up(T value, T step) {
  const std::optional<T> padded = checked_add<T>(value, static_cast<T>(step - 1));
  if (!padded) return std::nullopt;
  return static_cast<T>(*padded / step * step);
}

}  // namespace rtlynx
