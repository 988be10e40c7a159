// Every allocation of the standard library and of the allocation seam fails in turn, once or from then on: the call
// ends with kOutOfMemory, and the next one works.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <new>

#include "core/alloc.h"
#include "io/adapter.h"
#include "io/png.h"
#include "io/safetensors.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"
#include "tests/io/safetensors_cases.h"

namespace {

bool g_armed = false;
bool g_and_all_later = false;
int64_t g_countdown = 0;
bool g_fired = false;

bool must_fail() {
  if (!g_armed) return false;
  --g_countdown;
  const bool fail = g_countdown == 0 || (g_countdown < 0 && g_and_all_later);
  g_fired = g_fired || fail;
  return fail;
}

void* allocate_or_throw(std::size_t bytes) {
  void* pointer = must_fail() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

}  // namespace

void* operator new(std::size_t bytes) {
  return allocate_or_throw(bytes);
}
void* operator new[](std::size_t bytes) {
  return allocate_or_throw(bytes);
}
void operator delete(void* pointer) noexcept {
  std::free(pointer);
}
void operator delete[](void* pointer) noexcept {
  std::free(pointer);
}
void operator delete(void* pointer, std::size_t) noexcept {
  std::free(pointer);
}
void operator delete[](void* pointer, std::size_t) noexcept {
  std::free(pointer);
}

namespace rtlynx::io {
namespace {

using testing::TemporaryFolder;

class OutOfMemory : public ::testing::Test {
 protected:
  /// Fails allocation k of `body` for k = 1, 2, 3, ... until none is left to fail.
  void every_allocation_fails(const std::function<void()>& body) {
    body();
    for (const bool and_all_later : {false, true}) {
      int64_t k = 1;
      for (bool fired = true; fired; ++k) {
        const ErrorCode code = run_with_fault(body, k, and_all_later);
        fired = g_fired;
        // Where one allocation is caught inside (std::stable_sort's buffer, say), success is right as well.
        ASSERT_TRUE(code == ErrorCode::kOk || code == ErrorCode::kOutOfMemory)
            << error_name(code) << ", allocation " << k;
        ASSERT_TRUE(fired || code == ErrorCode::kOk);
        ASSERT_LT(k, 20'000);
      }
      EXPECT_GT(k, 3);
      body();
    }
  }

  TemporaryFolder folder;

 private:
  static ErrorCode run_with_fault(const std::function<void()>& body, int64_t k, bool and_all_later) {
    g_countdown = k;
    g_and_all_later = and_all_later;
    g_fired = false;
    g_armed = true;
    ErrorCode code = ErrorCode::kOk;
    try {
      body();
    } catch (const Error& error) {
      code = error.code();
    } catch (const std::bad_alloc&) {
      // Before the call's own guard, in the arguments of this body, or where not even the message could be made.
      code = ErrorCode::kOutOfMemory;
    }
    g_armed = false;
    return code;
  }
};

TEST_F(OutOfMemory, ReadingSafetensors) {
  const auto path = folder.write(
      "model.safetensors",
      testing::safetensors_bytes(
          R"({"__metadata__":{"k":"v"},)" + testing::safetensors_entry("a", "\"U8\"", "[2]", "[0,2]") + "}", 2));
  every_allocation_fails([&] { SafetensorsFile::open(path); });
  every_allocation_fails([&] { ComponentWeights::open(folder.path()); });
}

TEST_F(OutOfMemory, WritingSafetensors) {
  const std::vector<std::byte> bytes(8);
  const auto path = folder / "a.safetensors";
  every_allocation_fails([&] {
    write_safetensors(path, {{"a", DType::kF32, {2}, bytes}, {"b", DType::kF16, {2, 2}, bytes}}, {{"k", "v"}});
  });
  EXPECT_EQ(folder.count(), 1u);
}

TEST_F(OutOfMemory, Pictures) {
  const std::vector<uint8_t> rgb(12);
  const auto path = folder / "a.png";
  every_allocation_fails([&] { write_png(path, 2, 2, rgb, {{"k", "v"}}); });
  EXPECT_EQ(folder.count(), 1u);
  every_allocation_fails([&] { read_png(path); });
  every_allocation_fails([&] { read_png_text(path); });
}

TEST_F(OutOfMemory, TheSeam) {
  folder.write("model.safetensors", testing::safetensors_bytes("{}"));
  for (int64_t k = 1; k <= 2; ++k) {
    fail_allocation(k);
    try {
      fingerprint(ComponentWeights::open(folder.path()));
      ADD_FAILURE() << "allocation " << k << " did not fail";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    }
  }
  fail_allocation(0);
  EXPECT_NO_THROW(fingerprint(ComponentWeights::open(folder.path())));
}

}  // namespace
}  // namespace rtlynx::io
