#include "bench/kernels/linear_times.h"

#include <gtest/gtest.h>

#include "bench/kernels/linear_on_cuda.h"
#include "bench/kernels/linear_vs_torch.h"
#include "core/file.h"
#include "tests/core/expect_error.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::bench {
namespace {

using rtlynx::testing::expect_error;
using rtlynx::testing::TemporaryFolder;

std::string cuda_lines() {
  CudaBenchRow row;
  row.shape = {4096, 3072, 12288, 19, "somewhere"};
  row.gpu = "GPU";
  row.plan = "sparse: it pays";
  row.timings[static_cast<int>(CudaContestant::kTorchLinear)].median_us = 450;
  row.timings[static_cast<int>(CudaContestant::kCublasLt)].median_us = 400;
  row.timings[static_cast<int>(CudaContestant::kLinear)].median_us = 300;
  return cuda_jsonl_of({row});
}

std::string cpu_lines(int threads, double dense, double sparse) {
  LinearBenchRow row;
  row.shape = {256, 512, 1024, 1, "somewhere"};
  row.dtype = DType::kF32;
  row.threads = threads;
  row.linear = row.prepacked = {dense, dense};
  row.sparse = {sparse, sparse};
  return jsonl_of({row});
}

TEST(LinearTimes, TellsWhatTheBenchsOwnFilesSay) {
  const TemporaryFolder folder;
  write_atomically(folder / "t.jsonl", cuda_lines() + cpu_lines(2, 3, 2.5) + "\n" + cpu_lines(4, 2, 2.25));
  EXPECT_NEAR(LinearTimes::read(folder / "t.jsonl", "bf16", 2).saved_ms(4096, 3072, 12288), 0.15, 1e-9);
  EXPECT_NEAR(LinearTimes::read(folder / "t.jsonl", "fp32", 2).saved_ms(256, 512, 1024), 0.5, 1e-9);
  EXPECT_NEAR(LinearTimes::read(folder / "t.jsonl", "fp32", 4).saved_ms(256, 512, 1024), -0.25, 1e-9);
}

TEST(LinearTimes, WhatWasNotTimedIsNamed) {
  const TemporaryFolder folder;
  write_atomically(folder / "t.jsonl", cuda_lines());
  const LinearTimes times = LinearTimes::read(folder / "t.jsonl", "bf16", 1);
  expect_error(ErrorCode::kInvalidArgument, {"t.jsonl", "m=1 n=3072 k=12288"}, [&] { times.saved_ms(1, 3072, 12288); });
  expect_error(ErrorCode::kInvalidArgument, {"no times for fp32"},
               [&] { LinearTimes::read(folder / "t.jsonl", "fp32", 1); });
  expect_error(ErrorCode::kNotFound, {"none"}, [&] { LinearTimes::read(folder / "none", "fp32", 1); });
  write_atomically(folder / "bad", "{\"bench\":\"linear\"}\n");
  expect_error(ErrorCode::kBadConfig, {"bad:1", "dtype"}, [&] { LinearTimes::read(folder / "bad", "fp32", 1); });
  write_atomically(folder / "bad", "\nm n k\n");
  expect_error(ErrorCode::kBadJson, {"bad:2"}, [&] { LinearTimes::read(folder / "bad", "fp32", 1); });
}

}  // namespace
}  // namespace rtlynx::bench
