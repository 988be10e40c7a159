#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/core/expect_error.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::models {

namespace fs = std::filesystem;

inline void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// An empty folder for a tokenizer's files.
class TokenizerTest : public ::testing::Test {
 protected:
  const rtlynx::testing::TemporaryFolder temporary_folder_;
  const fs::path folder_ = temporary_folder_.path();
};

}  // namespace rtlynx::models
