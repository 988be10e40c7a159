// The pipeline's behaviour around the pictures, on the embedded model: order, progress, cancellation, wrong calls.
// That the pictures are right is test_pipeline_parity.py's business.

#include "pipeline/flux_pipeline.h"

#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "rtlynx/status.h"

namespace rtlynx::pipeline {
namespace {

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kOk;
}

class FluxPipelineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    pipeline_ = std::make_unique<FluxPipeline>(FluxPipeline::load(RTLYNX_SOURCE_DIR "/models/mini-flux", {}));
  }
  static void TearDownTestSuite() { pipeline_.reset(); }

  static GenerateOptions small() {
    GenerateOptions options;
    options.prompt = "a fox";
    options.width = options.height = 32;
    options.num_inference_steps = 3;
    return options;
  }

  static std::unique_ptr<FluxPipeline> pipeline_;
};

std::unique_ptr<FluxPipeline> FluxPipelineTest::pipeline_;

TEST_F(FluxPipelineTest, ListsTheReplaceableLinearsInTheDocumentedOrder) {
  const auto linears = pipeline_->transformer().sparse_linears();
  const auto& config = pipeline_->transformer().config();
  ASSERT_EQ(linears.size(), 12 * config.num_layers + 5 * config.num_single_layers);
  const char* const kDouble[] = {"attn.to_q",
                                 "attn.to_k",
                                 "attn.to_v",
                                 "attn.to_out.0",
                                 "attn.add_q_proj",
                                 "attn.add_k_proj",
                                 "attn.add_v_proj",
                                 "attn.to_add_out",
                                 "ff.net.0.proj",
                                 "ff.net.2",
                                 "ff_context.net.0.proj",
                                 "ff_context.net.2"};
  for (std::size_t i = 0; i < std::size(kDouble); ++i) {
    EXPECT_EQ(linears[12 + i]->name(), std::string("transformer_blocks.1.") + kDouble[i]);
  }
  const char* const kSingle[] = {"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out"};
  for (std::size_t i = 0; i < std::size(kSingle); ++i) {
    EXPECT_EQ(linears[12 * config.num_layers + i]->name(), std::string("single_transformer_blocks.0.") + kSingle[i]);
  }
  EXPECT_EQ(linears.back()->k(), 5 * config.dim());
}

TEST_F(FluxPipelineTest, ObserverSeesEveryBlockInOrder) {
  std::vector<std::string> seen;
  auto before = pipeline_->transformer().set_block_observer(
      [&](std::string_view module, std::string_view, const at::Tensor& value) {
        EXPECT_TRUE(value.defined());
        if (seen.empty() || seen.back() != module) seen.emplace_back(module);
      });
  auto options = small();
  options.num_inference_steps = 1;
  const auto observed = pipeline_->generate(options);
  pipeline_->transformer().set_block_observer(std::move(before));
  const auto& config = pipeline_->transformer().config();
  ASSERT_EQ(seen.size(), 4 + config.num_layers + config.num_single_layers);
  EXPECT_EQ(seen.front(), "x_embedder");
  EXPECT_EQ(seen[3], "transformer_blocks.0");
  EXPECT_EQ(seen.back(), "proj_out");
  EXPECT_EQ(pipeline_->generate(options)[0].rgb, observed[0].rgb);
}

TEST_F(FluxPipelineTest, ReportsEveryStep) {
  std::vector<int64_t> steps;
  double last = 0;
  pipeline_->generate(small(), [&](int64_t step, int64_t total, double seconds) {
    EXPECT_EQ(total, 3);
    EXPECT_GE(seconds, last);
    last = seconds;
    steps.push_back(step);
    return true;
  });
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3}));
}

TEST_F(FluxPipelineTest, StopsWhenAskedAndWorksAgain) {
  const auto before = pipeline_->generate(small());
  int64_t calls = 0;
  EXPECT_EQ(code_of([&] { pipeline_->generate(small(), [&](int64_t, int64_t, double) { return ++calls < 2; }); }),
            ErrorCode::kCancelled);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(pipeline_->generate(small())[0].rgb, before[0].rgb);
}

TEST_F(FluxPipelineTest, AVelocityPredictedAloneIsThatOfTheRun) {
  const auto embeddings = pipeline_->encode_prompts({"a fox", "an owl"});
  const DenoiseOptions options = small();
  std::vector<std::pair<at::Tensor, at::Tensor>> seen;
  pipeline_->set_step_observer([&](int64_t step, const at::Tensor& latents, const at::Tensor& velocity) {
    EXPECT_EQ(step, static_cast<int64_t>(seen.size()));
    seen.emplace_back(latents.clone(), velocity.clone());
  });
  const at::Tensor noise = pipeline_->initial_latents({3, 4}, 32, 32);
  pipeline_->denoise(embeddings, nullptr, noise, options);
  EXPECT_TRUE(pipeline_->set_step_observer({})) << "the one set above";
  pipeline_->denoise(embeddings, nullptr, noise, options);
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_TRUE(seen[0].first.equal(noise));
  for (int64_t step = 0; step < 3; ++step) {
    const auto& [latents, velocity] = seen[static_cast<std::size_t>(step)];
    EXPECT_TRUE(pipeline_->predict_velocity(embeddings, latents, step, options).equal(velocity)) << step;
  }
  EXPECT_FALSE(pipeline_->predict_velocity(embeddings, noise, 1, options).equal(seen[0].second));
  for (const int64_t step : {-1, 3}) {
    EXPECT_EQ(code_of([&] { pipeline_->predict_velocity(embeddings, noise, step, options); }),
              ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(code_of([&] { pipeline_->predict_velocity(embeddings, noise.narrow(0, 0, 1), 0, options); }),
            ErrorCode::kInvalidArgument);
}

TEST_F(FluxPipelineTest, ImagesKnowTheirSeedsAndSeedsWrapAround) {
  auto options = small();
  options.num_inference_steps = 1;
  options.seed = UINT64_MAX;
  options.num_images_per_prompt = 2;
  const auto images = pipeline_->generate(options);
  ASSERT_EQ(images.size(), 2U);
  EXPECT_EQ(images[0].seed, UINT64_MAX);
  EXPECT_EQ(images[1].seed, 0U);
  EXPECT_EQ(images[0].rgb.size(), 32U * 32U * 3U);
  EXPECT_NE(images[0].rgb, images[1].rgb);
}

TEST_F(FluxPipelineTest, RefusesPromptsThatAreNoText) {
  auto options = small();
  options.prompt = "\xff\xfe";
  EXPECT_EQ(code_of([&] { pipeline_->generate(options); }), ErrorCode::kBadPrompt);
  options.prompt = std::string(1 << 20, 'a');
  EXPECT_EQ(code_of([&] { pipeline_->generate(options); }), ErrorCode::kBadPrompt);
  EXPECT_EQ(code_of([&] { pipeline_->encode_prompts({}); }), ErrorCode::kInvalidArgument);
}

TEST_F(FluxPipelineTest, CountsTheTokensThatDidNotFit) {
  EXPECT_EQ(pipeline_->encode_prompts({"a fox", "a fox and a fox and a fox"}, 8).prompt_embeds.size(1), 8);
  EXPECT_TRUE(pipeline_->truncations("a fox").empty());
  const std::string prompt(200, '.');  // a token each for T5; for CLIP at least one for the whole word
  const auto short_t5 = pipeline_->truncations(prompt, 8), long_t5 = pipeline_->truncations(prompt, 12);
  ASSERT_FALSE(short_t5.empty());
  ASSERT_EQ(short_t5.size(), long_t5.size());
  EXPECT_EQ(short_t5.back().encoder, "text_encoder_2");
  EXPECT_EQ(short_t5.back().limit, 8);
  EXPECT_EQ(short_t5.back().tokens_dropped, long_t5.back().tokens_dropped + 4);

  std::string words;
  for (int i = 0; i < 100; ++i) words += "fox ";
  const auto both = pipeline_->truncations(words);
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0].encoder, "text_encoder");
  EXPECT_EQ(both[0].limit, 77);
  EXPECT_EQ(both[0].tokens_dropped % 100, 25) << "a multiple of 100 tokens, less the 75 beside start and end";
  EXPECT_EQ(both[1].limit, pipeline_->default_max_sequence_length());
  EXPECT_EQ(code_of([&] { pipeline_->truncations("a fox", 513); }), ErrorCode::kInvalidArgument);
}

TEST_F(FluxPipelineTest, RefusesCallsThatDoNotFitTogether) {
  const auto one = pipeline_->encode_prompts({"a fox"});
  const auto two = pipeline_->encode_prompts({"a fox", "a snail"});
  const at::Tensor noise = pipeline_->initial_latents({1}, 32, 32);
  DenoiseOptions options = small();
  const auto denoise = [&](const PromptEmbeddings& prompts, const PromptEmbeddings* negative) {
    return code_of([&] { pipeline_->denoise(prompts, negative, noise, options); });
  };
  EXPECT_EQ(denoise(two, nullptr), ErrorCode::kInvalidArgument);
  EXPECT_EQ(denoise(one, &one), ErrorCode::kInvalidArgument) << "a negative prompt without guidance";
  options.true_cfg_scale = 2.0;
  EXPECT_EQ(denoise(one, nullptr), ErrorCode::kInvalidArgument) << "guidance without a negative prompt";
  EXPECT_EQ(denoise(one, &two), ErrorCode::kInvalidArgument);
  options.width = 64;
  EXPECT_EQ(denoise(one, &one), ErrorCode::kInvalidArgument) << "noise of another size";
  EXPECT_EQ(code_of([&] { pipeline_->decode(noise, 64, 32, {1}); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { pipeline_->decode(noise, 32, 32, {1, 2}); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { pipeline_->initial_latents({}, 32, 32); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { pipeline_->initial_latents({1}, 40, 32); }), ErrorCode::kInvalidArgument);
}

TEST_F(FluxPipelineTest, NonFiniteLatentsAreNamed) {
  const auto prompts = pipeline_->encode_prompts({"a fox"});
  const c10::InferenceMode inference;  // the pipeline's tensors are made in it, and may be written only there
  at::Tensor noise = pipeline_->initial_latents({1}, 32, 32);
  noise[0][1][2] = std::numeric_limits<float>::infinity();
  try {
    pipeline_->denoise(prompts, nullptr, noise, small());
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNonFinite);
    EXPECT_NE(error.status().message().find("step 1 of 3: the step before gives non-finite latents (1 of"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(code_of([&] { pipeline_->decode(noise, 32, 32, {1}); }), ErrorCode::kNonFinite);
}

TEST(FluxPipelineLoad, RefusesOtherTypesAndMissingFolders) {
  Placement half;
  half.dtype = at::kHalf;
  const std::string model = RTLYNX_SOURCE_DIR "/models/mini-flux";
  EXPECT_EQ(code_of([&] { FluxPipeline::load(model, half); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { FluxPipeline::load(model + "-not-there", {}); }), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace rtlynx::pipeline
