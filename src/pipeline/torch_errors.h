#pragma once

#include <c10/util/Exception.h>

#include <string>
#include <string_view>
#include <utility>

#include "rtlynx/status.h"

namespace rtlynx::pipeline {

/// The first line of a torch error; what follows is its backtrace and hints.
inline std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

/// Runs `function` and turns what libtorch throws into Error: kOutOfMemory where an allocation failed, else kInternal.
template <class Function>
decltype(auto) with_torch_errors(std::string_view doing, Function&& function) {
  const auto message = [&](const c10::Error& error) {
    return std::string(doing) + ": " + first_line(error.what_without_backtrace());
  };
  try {
    return std::forward<Function>(function)();
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ErrorCode::kOutOfMemory, message(error));
  } catch (const c10::Error& error) {
    // The CPU allocator has no exception class of its own.
    const bool allocation = std::string_view(error.what()).find("can't allocate memory") != std::string_view::npos;
    throw Error(allocation ? ErrorCode::kOutOfMemory : ErrorCode::kInternal, message(error));
  }
}

}  // namespace rtlynx::pipeline
