#include "pipeline/latents.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "pipeline/non_finite.h"
#include "pipeline/torch_errors.h"

namespace rtlynx::pipeline {
namespace {

TEST(Latents, PackingPutsTheChannelSlowest) {
  // Value = 1000 channel + 10 row + column.
  const at::Tensor channel = at::arange(2).reshape({1, 2, 1, 1}) * 1000;
  const at::Tensor row = at::arange(4).reshape({1, 1, 4, 1}) * 10;
  const at::Tensor latents = (channel + row + at::arange(6).reshape({1, 1, 1, 6})).to(at::kFloat);
  const at::Tensor packed = pack_latents(latents);
  ASSERT_EQ(packed.sizes(), at::IntArrayRef({1, 6, 8}));
  // Token 4 is at row 1, column 1 of the 2 x 3 grid: latent rows 2 and 3, columns 2 and 3.
  const at::Tensor expected = at::tensor({22.F, 23.F, 32.F, 33.F, 1022.F, 1023.F, 1032.F, 1033.F});
  EXPECT_TRUE(at::equal(packed[0][4], expected)) << packed[0][4];
  EXPECT_TRUE(at::equal(unpack_latents(packed, 2, 3), latents));
}

TEST(Latents, NoiseDependsOnTheSeedAlone) {
  const at::Tensor batch = draw_noise({5, 6, 5}, 4, 6, 8, at::kFloat);
  EXPECT_TRUE(at::equal(batch[0], batch[2]));
  EXPECT_FALSE(at::equal(batch[0], batch[1]));
  EXPECT_TRUE(at::equal(batch.narrow(0, 1, 1), draw_noise({6}, 4, 6, 8, at::kFloat)));
  // torch.randn(1, generator=torch.Generator().manual_seed(0)) in Python
  EXPECT_EQ(draw_noise({0}, 1, 1, 1, at::kFloat).item<float>(), 1.5409960746765137F);
}

TEST(Latents, ColoursAreRoundedTiesToEvenAndClamped) {
  const at::Tensor grey = at::tensor({-3.F, -1.F, 0.F, 1.F, 2.F, 0.5F / 255 * 2 - 1});
  const at::Tensor image = grey.reshape({1, 1, 1, 6}).expand({1, 3, 1, 6});
  const at::Tensor rgb = to_rgb8(image);
  ASSERT_EQ(rgb.sizes(), at::IntArrayRef({1, 1, 6, 3}));
  ASSERT_EQ(rgb.scalar_type(), at::kByte);
  const at::Tensor expected = at::tensor({0, 0, 128, 255, 255, 0}, at::kByte);  // 127.5 -> 128
  EXPECT_TRUE(at::equal(rgb[0][0].select(1, 0).narrow(0, 0, 5), expected.narrow(0, 0, 5))) << rgb;
}

TEST(NonFinite, NamesTheModuleTheTensorAndTheImage) {
  at::Tensor value = at::zeros({3, 4, 5});
  EXPECT_TRUE(all_finite(value));
  value[1][2][3] = std::nanf("");
  value[2][0][0] = INFINITY;
  EXPECT_FALSE(all_finite(value));
  EXPECT_EQ(describe_non_finite("transformer_blocks.3", "hidden_states", value),
            "transformer_blocks.3 gives non-finite hidden_states (2 of 60 values, image 2 of 3)");
}

ErrorCode code_of_torch_call(const std::function<void()>& call) {
  try {
    with_torch_errors("testing", call);
  } catch (const Error& error) {
    EXPECT_TRUE(error.status().message().starts_with("testing: ")) << error.what();
    EXPECT_EQ(error.status().message().find('\n'), std::string::npos) << error.what();
    return error.code();
  }
  return ErrorCode::kOk;
}

TEST(TorchErrors, BecomeOneLineWithACode) {
  EXPECT_EQ(code_of_torch_call([] { at::empty({int64_t{1} << 46}, at::kFloat); }), ErrorCode::kOutOfMemory);
  EXPECT_EQ(code_of_torch_call([] { at::zeros({2}) + at::zeros({3}); }), ErrorCode::kInternal);
  EXPECT_EQ(code_of_torch_call([] {}), ErrorCode::kOk);
}

}  // namespace
}  // namespace rtlynx::pipeline
