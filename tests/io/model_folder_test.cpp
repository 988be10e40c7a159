#include "io/model_folder.h"

#include <gtest/gtest.h>

#include "tests/core/expect_error.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::io {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

constexpr std::string_view kGood = R"({
  "_class_name": "FluxPipeline", "_diffusers_version": "0.42.1", "force_zeros": true,
  "feature_extractor": [null, null], "image_encoder": null,
  "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"]})";

TEST(ModelFolder, ListsItsComponents) {
  const TemporaryFolder folder;
  folder.write("model_index.json", kGood);
  folder.write("vae/config.json", "{}");
  const ModelFolder model = ModelFolder::open(folder.path());
  EXPECT_EQ(model.path(), folder.path());
  EXPECT_EQ(model.class_name(), "FluxPipeline");
  ASSERT_EQ(model.components().size(), 2u);
  EXPECT_EQ(model.components()[0].name, "text_encoder");
  EXPECT_EQ(model.components()[1].library, "diffusers");
  EXPECT_EQ(model.find("image_encoder"), nullptr);
  EXPECT_NO_THROW(model.expect_class("FluxPipeline"));
  EXPECT_EQ(model.component("vae", "AutoencoderKL"), folder / "vae");
}

TEST(ModelFolder, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::kNotFound, {"none"}, [&] { ModelFolder::open(folder / "none"); });
  expect_error(ErrorCode::kNotAFile, {"file", "folder"}, [&] { ModelFolder::open(folder.write("file", "")); });
  expect_error(ErrorCode::kNotFound, {folder.path().string(), "model_index.json"},
               [&] { ModelFolder::open(folder.path()); });
  const auto refused = [&](ErrorCode code, std::string_view text, std::string_view mention) {
    folder.write("model_index.json", text);
    expect_error(code, {"model_index.json", mention}, [&] { ModelFolder::open(folder.path()); });
  };
  refused(ErrorCode::kBadJson, "{", "syntax error");
  refused(ErrorCode::kBadConfig, "[]", "object");
  refused(ErrorCode::kBadConfig, "{}", "\"_class_name\"");
  refused(ErrorCode::kBadConfig, R"({"_class_name":"X","vae":["diffusers"]})", "\"vae\"");
  refused(ErrorCode::kBadConfig, R"({"_class_name":"X","vae":["diffusers",7]})", "\"vae\"");

  folder.write("model_index.json", kGood);
  const ModelFolder model = ModelFolder::open(folder.path());
  expect_error(ErrorCode::kUnknownClass, {"model_index.json", "\"FluxPipeline\"", "\"QwenImagePipeline\""},
               [&] { model.expect_class("QwenImagePipeline"); });
  expect_error(ErrorCode::kUnknownClass, {"vae", "\"AutoencoderKL\"", "\"Other\""},
               [&] { model.component("vae", "Other"); });
  expect_error(ErrorCode::kBadConfig, {"\"transformer\""}, [&] { model.component("transformer", "X"); });
  expect_error(ErrorCode::kNotFound, {"vae"}, [&] { model.component("vae", "AutoencoderKL"); });
}

TEST(ModelFolder, ComponentsStayInside) {
  const TemporaryFolder outside;
  const TemporaryFolder folder;
  folder.write("model_index.json", R"({"_class_name":"X","vae":["d","C"],"../up":["d","C"]})");
  std::filesystem::create_symlink(outside.path(), folder / "vae");
  const ModelFolder model = ModelFolder::open(folder.path());
  expect_error(ErrorCode::kOutsideFolder, {"vae"}, [&] { model.component("vae", "C"); });
  expect_error(ErrorCode::kOutsideFolder, {"../up"}, [&] { model.component("../up", "C"); });
  std::filesystem::remove(folder / "vae");
  std::filesystem::create_directory_symlink("real", folder / "vae");
  std::filesystem::create_directory(folder / "real");
  EXPECT_EQ(model.component("vae", "C"), folder / "real");
}

}  // namespace
}  // namespace rtlynx::io
