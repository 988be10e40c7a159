#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "rtlynx/status.h"

namespace rtlynx::testing {

/// Runs `body` and expects Error with exactly this code, its message on one line and holding every one of `mentions`.
template <class Body>
void expect_error(ErrorCode code, std::initializer_list<std::string_view> mentions, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error_name(error.code()), error_name(code)) << error.what();
    const std::string& message = error.status().message();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string_view mention : mentions) {
      EXPECT_NE(message.find(mention), std::string::npos) << "expected \"" << mention << "\" in: " << message;
    }
    return;
  }
  ADD_FAILURE() << "expected " << error_name(code) << ", nothing was thrown";
}

}  // namespace rtlynx::testing
