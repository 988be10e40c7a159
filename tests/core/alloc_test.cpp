#include "core/alloc.h"

#include <gtest/gtest.h>

#include <limits>
#include <new>

#include "tests/core/expect_error.h"

namespace rtlynx {
namespace {

class Alloc : public ::testing::Test {
 protected:
  void TearDown() override { fail_allocation(0); }
};

TEST_F(Alloc, IsAligned) {
  for (const std::size_t alignment : {std::size_t{8}, std::size_t{64}, std::size_t{4096}}) {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{1000}}) {
      void* pointer = allocate(bytes, alignment);
      ASSERT_NE(pointer, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(pointer) % alignment, 0u);
      deallocate(pointer);
    }
  }
}

TEST_F(Alloc, PaddingMayNotWrapAround) {
  EXPECT_EQ(allocate(std::numeric_limits<std::size_t>::max()), nullptr);
  EXPECT_EQ(allocate(std::numeric_limits<std::size_t>::max() - 8, 4096), nullptr);
}

TEST_F(Alloc, FailsOnceOrForGood) {
  fail_allocation(2);
  EXPECT_TRUE(HostBuffer::create(8).ok());
  const auto failed = HostBuffer::create(123);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(failed.status().message().find("123"), std::string::npos);
  EXPECT_TRUE(HostBuffer::create(8).ok());
  EXPECT_EQ(allocations_seen(), 3);

  fail_allocation(1, true);
  EXPECT_FALSE(HostBuffer::create(8).ok());
  EXPECT_FALSE(HostBuffer::create(8).ok());
}

TEST_F(Alloc, BufferMoves) {
  HostBuffer a = HostBuffer::create(16).value();
  a.data()[15] = std::byte{7};
  HostBuffer b = std::move(a);
  EXPECT_EQ(b.size(), 16u);
  EXPECT_EQ(b.bytes()[15], std::byte{7});
  a = std::move(b);
  EXPECT_EQ(a.size(), 16u);
}

TEST_F(Alloc, BadAllocBecomesAnError) {
  testing::expect_error(ErrorCode::kOutOfMemory, {"some/file"},
                        [] { or_out_of_memory("some/file", []() -> int { throw std::bad_alloc(); }); });
}

}  // namespace
}  // namespace rtlynx
