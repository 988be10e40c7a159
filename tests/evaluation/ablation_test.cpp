#include "evaluation/ablation.h"

#include <gtest/gtest.h>

#include "evaluation/report.h"
#include "tests/core/expect_error.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::evaluation {
namespace {

using rtlynx::testing::expect_error;
using rtlynx::testing::TemporaryFolder;

const std::string kModels = std::string(RTLYNX_SOURCE_DIR) + "/models/";

AblationOptions small_run(const std::filesystem::path& state) {
  AblationOptions options;
  options.methods = {method_from_name("dense"), method_from_name("sw")};
  options.num_prompts = 2;
  options.batch_size = 1;
  options.sheet_columns = 1;
  options.denoise.width = options.denoise.height = 256;
  options.denoise.num_inference_steps = 2;
  options.state = state;
  options.identity = "test";
  return options;
}

class Ablation : public ::testing::Test {
 protected:
  pipeline::FluxPipeline pipeline_ = pipeline::FluxPipeline::load(kModels + "mini-flux", {});
  Scorer scorer_ = Scorer::load(kModels + "mini-flux-scorer", at::kCPU);
  TemporaryFolder folder_;
};

struct Stop {};

TEST_F(Ablation, StoppedAndContinuedGivesTheSameFiguresAndLeavesTheModelDense) {
  const at::Tensor weight = pipeline_.transformer().sparse_linears().front()->weight().clone();
  const AblationResult whole = run_ablation(pipeline_, scorer_, small_run(folder_ / "whole"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "whole"));

  const AblationOptions options = small_run(folder_ / "state");
  EXPECT_THROW(run_ablation(pipeline_, scorer_, options,
                            [](int64_t done, int64_t) {
                              if (done == 3) throw Stop();  // in the second batch
                            }),
               Stop);
  AblationOptions other = options;
  other.seed = 2;
  expect_error(ErrorCode::kOtherRun, {"seed"}, [&] { run_ablation(pipeline_, scorer_, other); });
  int64_t first = -1;
  const AblationResult resumed = run_ablation(pipeline_, scorer_, options, [&](int64_t done, int64_t total) {
    if (first < 0) first = done;
    EXPECT_EQ(total, 4);
  });
  EXPECT_EQ(first, 2) << "the first batch was not made again";

  ASSERT_EQ(resumed.methods.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(resumed.methods[i].accuracy, whole.methods[i].accuracy);
    EXPECT_EQ(resumed.methods[i].frechet, whole.methods[i].frechet);
    EXPECT_EQ(resumed.methods[i].psnr, whole.methods[i].psnr);
    EXPECT_EQ(resumed.pictures[i][0].rgb, whole.pictures[i][0].rgb);
  }
  EXPECT_NE(whole.pictures[0][0].rgb, whole.pictures[1][0].rgb);
  EXPECT_FALSE(whole.methods[0].psnr.has_value());
  EXPECT_LT(*whole.methods[1].psnr, 60) << "pruned weights change the pictures";
  for (const Linear* linear : pipeline_.transformer().sparse_linears()) EXPECT_EQ(linear->mode(), LinearMode::kDense);
  EXPECT_TRUE(pipeline_.transformer().sparse_linears().front()->weight().equal(weight));
}

TEST_F(Ablation, WrongOptionsAreRefused) {
  const auto expect_refused = [&](std::string_view mention, const std::function<void(AblationOptions&)>& change) {
    AblationOptions options = small_run(folder_ / "state");
    change(options);
    expect_error(ErrorCode::kInvalidArgument, {mention}, [&] { run_ablation(pipeline_, scorer_, options); });
  };
  expect_refused("dense", [](auto& o) { o.methods.erase(o.methods.begin()); });
  expect_refused("1 prompts", [](auto& o) { o.num_prompts = 1; });
  expect_refused("batch size", [](auto& o) { o.batch_size = 0; });
  expect_refused("adapter", [](auto& o) { o.methods.push_back(method_from_name("sa-nc-lora")); });
  expect_refused("sa-nc-lora-sl needs", [](auto& o) { o.methods.push_back(method_from_name("sa-nc-lora-sl")); });
  expect_error(ErrorCode::kInvalidArgument, {"dense, sw, sa, sa-nc, sa-nc-lora, sa-nc-lora-sl"},
               [] { method_from_name("lora"); });
}

AblationResult two_rows() {
  AblationResult result;
  MethodResult dense, sparse;
  dense.name = "dense";
  dense.accuracy = 0.875;
  dense.frechet = 1.5;
  dense.seconds_per_step = 0.02;
  sparse = dense;
  sparse.name = "sa";
  sparse.psnr = 21.25;
  result.methods = {dense, sparse};
  result.captions = {"a fox on a plain red background", "an owl above a key on a dotted blue background"};
  const pipeline::Image picture = {256, 256, std::vector<uint8_t>(256 * 256 * 3, 40), 0};
  result.pictures = {{picture, picture}, {picture, picture}};
  return result;
}

TEST(Report, TablesHoldEveryFigure) {
  const AblationResult result = two_rows();
  EXPECT_NE(to_markdown(result, "").find("| dense | 87.5 % | 1.500 | - | 20.0 |"), std::string::npos);
  EXPECT_NE(to_markdown(result, "").find("| sa | 87.5 % | 1.500 | 21.25 | 20.0 |"), std::string::npos);
  EXPECT_NE(to_csv(result).find("\nsa,0.875000,1.500000,21.2500,0.020000,"), std::string::npos);
  EXPECT_EQ(to_json(result)[1]["psnr_to_dense_db"], 21.25);
  EXPECT_FALSE(to_json(result)[0].contains("psnr_to_dense_db"));
}

TEST(Report, TheSheetHoldsEveryPictureAndIsTheSameEveryTime) {
  const AblationResult result = two_rows();
  const pipeline::Image sheet = contact_sheet(result);
  EXPECT_GT(sheet.width, 2 * 100);
  EXPECT_GT(sheet.height, 2 * 100);
  ASSERT_EQ(sheet.rgb.size(), static_cast<std::size_t>(sheet.width * sheet.height * 3));
  EXPECT_EQ(contact_sheet(result).rgb, sheet.rgb);
  AblationResult other = result;
  other.captions[1] = "something else";
  EXPECT_NE(contact_sheet(other).rgb, sheet.rgb) << "captions are drawn";
  other = result;
  other.methods[1].name = "sa-nc";
  EXPECT_NE(contact_sheet(other).rgb, sheet.rgb) << "so are the rows' names";
}

}  // namespace
}  // namespace rtlynx::evaluation
