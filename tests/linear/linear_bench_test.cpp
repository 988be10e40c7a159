// What `rtlynx bench linear --device cuda` prints and writes, and what it refuses; the measuring itself needs a GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/kernels/linear_on_cuda.h"
#include "linear/cuda_kernels.h"
#include "rtlynx/status.h"

namespace rtlynx::bench {
namespace {

CudaBenchRow row_of(double torch, double cublaslt, double spmm, double prune, double linear) {
  CudaBenchRow row;
  row.shape = {4096, 3072, 12288, 19, "somewhere"};
  row.gpu = "GPU";
  row.rank = 64;
  row.commit = "abc";
  row.plan = "sparse: it pays";
  const auto set = [&](CudaContestant who, double us) {
    row.timings[static_cast<int>(who)] = {us, us - 1, us + 1, 1700, 600};
  };
  set(CudaContestant::kTorchLinear, torch);
  set(CudaContestant::kCublasLt, cublaslt);
  if (spmm > 0) set(CudaContestant::kSpmm, spmm);
  if (prune > 0) set(CudaContestant::kPruneCompress, prune);
  if (linear > 0) set(CudaContestant::kLinear, linear);
  return row;
}

TEST(CudaBenchReport, ComparesWithTheFasterDenseProduct) {
  const CudaBenchRow row = row_of(450, 400, 250, 30, 300);
  EXPECT_DOUBLE_EQ(row.dense_us(), 400);
  EXPECT_DOUBLE_EQ(row_of(390, 400, 250, 30, 300).dense_us(), 390);
  EXPECT_DOUBLE_EQ(row.speedup(CudaContestant::kSpmm), 1.6);
  EXPECT_DOUBLE_EQ(row.speedup(CudaContestant::kCslProduct), 0) << "it did not run";
  EXPECT_DOUBLE_EQ(row.sparse_cost_percent(), 10);
  EXPECT_DOUBLE_EQ(row_of(450, 400, 0, 0, 0).sparse_cost_percent(), 0);
  const std::string line = cuda_line_of(row);
  for (const char* part : {"4096 3072 12288", " 400.0 ", " 773 ", "1.600x", "1.333x", " 10.0 ", " sparse\n", " - "}) {
    EXPECT_NE(line.find(part), std::string::npos) << part << " in " << line;
  }
}

TEST(CudaBenchReport, MeansAreGeometricAndCountOnlyWhatRan) {
  const std::string line = cuda_means_line({row_of(400, 400, 100, 30, 200), row_of(400, 400, 400, 30, 0)});
  EXPECT_NE(line.find("2 shapes:"), std::string::npos) << line;
  EXPECT_NE(line.find("spmm 2.000x"), std::string::npos) << line;
  EXPECT_NE(line.find("linear with branch 2.000x (1 shapes)"), std::string::npos) << line;
  EXPECT_EQ(line.find("cusparselt"), std::string::npos) << line;
}

TEST(CudaBenchReport, WritesOneJsonObjectForEachContestantThatRan) {
  std::istringstream lines(cuda_jsonl_of({row_of(450, 400, 250, 30, 300)}));
  std::map<std::string, nlohmann::json> found;
  for (std::string line; std::getline(lines, line);) {
    const auto object = nlohmann::json::parse(line);
    found[object.at("contestant")] = object;
  }
  EXPECT_EQ(found.size(), 5U);
  const auto& spmm = found.at("spmm");
  EXPECT_EQ(spmm.at("gpu"), "GPU");
  EXPECT_EQ(spmm.at("commit"), "abc");
  EXPECT_EQ(spmm.at("k"), 12288);
  EXPECT_EQ(spmm.at("median_us"), 250);
  EXPECT_EQ(spmm.at("over_dense"), 1.6);
  EXPECT_EQ(spmm.at("plan"), "sparse: it pays");
  for (int i = 0; i < kCudaContestants; ++i) EXPECT_STRNE(contestant_name(static_cast<CudaContestant>(i)), "unknown");
}

TEST(CudaBenchReport, DrawsABarForEachSpeedUp) {
  const std::string svg = cuda_plot_of({row_of(450, 400, 250, 30, 300), row_of(400, 400, 250, 0, 0)});
  const auto count = [&](const std::string& part) {
    int found = 0;
    for (std::size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("<rect "), 1 + 5 + 3) << "background, legend, bars";
  EXPECT_EQ(count(">1.60</text>"), 2);
  EXPECT_EQ(count(">1.33</text>"), 1);
  EXPECT_EQ(count(">2.0x</text>"), 1) << "the axis ends there";
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

ErrorCode code_of(const CudaBenchOptions& options) {
  try {
    run_linear_cuda_bench(options);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kOk;
}

TEST(CudaBench, RefusesWrongOptionsAndMachines) {
  const CudaBenchOptions good{.shapes = RTLYNX_SOURCE_DIR "/shapes/hopper.txt"};
  if (!at::hasCUDA() || at::getNumGPUs() == 0) {
    EXPECT_EQ(code_of(good), ErrorCode::kUnsupported);
  }
  if (!cuda_refusal(at::empty({64, 64}, at::kBFloat16), 0).starts_with("this build")) {
    for (const auto& change : {+[](CudaBenchOptions& o) { o.rounds = 0; }, +[](CudaBenchOptions& o) { o.rank = 0; },
                               +[](CudaBenchOptions& o) { o.rank = 129; }}) {
      CudaBenchOptions options = good;
      change(options);
      EXPECT_EQ(code_of(options), ErrorCode::kInvalidArgument);
    }
    EXPECT_EQ(code_of({.shapes = "nowhere.txt"}), ErrorCode::kNotFound);
  }
}

}  // namespace
}  // namespace rtlynx::bench
