#include "evaluation/scenes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/core/expect_error.h"

namespace rtlynx::evaluation {
namespace {

using rtlynx::testing::expect_error;

nlohmann::json words() {
  return {{"concepts", {"fox", "red apple", "owl", "grapes"}},
          {"colours", {"blue", "orange", "pink"}},
          {"patterns", {"plain", "striped"}},
          {"relations", {"left of", "right of", "above", "below"}},
          {"without_article", {"grapes"}}};
}

SceneVocabulary vocabulary() {
  return SceneVocabulary::from_config({words(), "words"});
}

TEST(Scenes, CaptionsFollowTheGrammar) {
  const SceneVocabulary v = vocabulary();
  EXPECT_EQ(caption(v, {0, 1, 2, true, 0, 1}), "a fox above a red apple on a striped blue background");
  EXPECT_EQ(caption(v, {2, 3, 0, true, 1, 0}), "an owl left of grapes on a plain orange background");
  EXPECT_EQ(caption(v, {3, 1, 2, false, 2, 0}), "grapes on a plain pink background");
}

TEST(Scenes, LabelsSayWhereEachEmojiStands) {
  const SceneVocabulary v = vocabulary();
  const int64_t none = 4;
  EXPECT_EQ(labels(v, {0, 1, 0, true, 2, 1}), (Labels{0, 1, none, none, none, 2, 1}));
  EXPECT_EQ(labels(v, {0, 1, 1, true, 2, 1}), (Labels{1, 0, none, none, none, 2, 1}));
  EXPECT_EQ(labels(v, {0, 1, 2, true, 2, 1}), (Labels{none, none, 0, 1, none, 2, 1}));
  EXPECT_EQ(labels(v, {0, 1, 3, true, 2, 1}), (Labels{none, none, 1, 0, none, 2, 1}));
  EXPECT_EQ(labels(v, {0, 1, 3, false, 2, 1}), (Labels{none, none, none, none, 0, 2, 1}));
}

TEST(Scenes, AreDecidedBySeedAndPlaceAlone) {
  const SceneVocabulary v = vocabulary();
  const auto texts = [&](uint64_t seed, int64_t count) {
    std::vector<std::string> captions;
    for (const Scene& scene : draw_scenes(v, seed, count)) captions.push_back(caption(v, scene));
    return captions;
  };
  const auto many = texts(9, 200), few = texts(9, 50);
  EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
  EXPECT_NE(texts(10, 200), many);
  EXPECT_EQ(texts(9, 0).size(), 0U);
}

/// The published figures of the ablation rest on these captions: they must not change from version to version.
TEST(Scenes, StayTheSameFromVersionToVersion) {
  const auto prompts = scene_prompts(std::string(RTLYNX_SOURCE_DIR) + "/models/mini-flux-scorer", 1, 3);
  EXPECT_EQ(prompts, (std::vector<std::string>{"a lion left of a guitar on a checkered white background",
                                               "a pig face right of a rose on a dotted blue background",
                                               "a parrot on a plain black background"}));
}

TEST(Scenes, EveryWordTurnsUpAtItsShare) {
  const SceneVocabulary v = vocabulary();
  const auto scenes = draw_scenes(v, 3, 20000);
  std::array<int, 4> first{}, second{}, relation{};
  std::array<int, 3> colour{};
  int pairs = 0;
  for (const Scene& scene : scenes) {
    ++first[static_cast<std::size_t>(scene.first)];
    ++second[static_cast<std::size_t>(scene.second)];
    ++relation[static_cast<std::size_t>(scene.relation)];
    ++colour[static_cast<std::size_t>(scene.colour)];
    pairs += scene.is_pair ? 1 : 0;
    ASSERT_NE(scene.first, scene.second);
  }
  for (const auto& counts : {first, second, relation}) {
    for (const int count : counts) EXPECT_NEAR(count, 5000, 300);  // five standard deviations
  }
  for (const int count : colour) EXPECT_NEAR(count, 6667, 340);
  EXPECT_NEAR(pairs, 14000, 330);
}

TEST(Scenes, UnusableVocabulariesAreRefused) {
  const auto expect_refused = [](std::string_view key, const nlohmann::json& value) {
    nlohmann::json bad = words();
    bad[std::string(key)] = value;
    expect_error(ErrorCode::kBadConfig, {"words", key}, [&] { SceneVocabulary::from_config({bad, "words"}); });
  };
  expect_refused("concepts", {"fox"});
  expect_refused("colours", nlohmann::json::array());
  expect_refused("patterns", nullptr);
  expect_refused("relations", {"left of", "right of", "below", "above"});
  expect_refused("patterns", {"plain", ""});
}

}  // namespace
}  // namespace rtlynx::evaluation
