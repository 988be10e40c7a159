#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>

#include "rtlynx/status.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::testing {
/// The process dies at the k-th file operation of `run(output)`, for every k; the next run finishes the work. At the
/// path given to it `run` must leave an adapter of the `wanted` bytes and nothing beside it.
inline void expect_same_bytes_wherever_killed(const std::string& wanted,
                                              const std::function<void(const std::filesystem::path& output)>& run) {
  bool died = true;
  int64_t k = 1;
  for (; died; ++k) {
    const TemporaryFolder folder;
    const std::filesystem::path output = folder / "a.safetensors";
    died = false;
    {
      FaultyFileSystem faulty({.at_call = k, .error = EIO, .and_all_later = true});
      const ScopedFileSystem scope(faulty);
      try {
        run(output);
      } catch (const Error&) {
        died = true;
      }
    }
    if (std::filesystem::exists(output)) {
      ASSERT_EQ(slurp(output), wanted) << "a complete adapter or none, call " << k;
    }
    run(output);
    ASSERT_EQ(slurp(output), wanted) << "call " << k;
    ASSERT_EQ(folder.count(), 1U) << "call " << k;
  }
  EXPECT_GT(k, 50) << "the run writes a dozen files";
}

}  // namespace rtlynx::testing
