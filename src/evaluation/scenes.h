#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace rtlynx::evaluation {

/// What a scorer reads, in the order of its heads.
enum class Head { kLeft, kRight, kTop, kBottom, kCentre, kColour, kPattern };
inline constexpr std::array<std::string_view, 7> kHeadNames = {"left",   "right",  "top",    "bottom",
                                                               "centre", "colour", "pattern"};
inline constexpr std::size_t kNumHeads = kHeadNames.size();
/// Heads that name an emoji; the last class of each is "none".
inline constexpr std::size_t kNumPositions = 5;

/// One class per head.
using Labels = std::array<int64_t, kNumHeads>;

/// The words of the scenes, from the scorer's config.json.
struct SceneVocabulary {
  std::vector<std::string> concepts;
  std::vector<std::string> colours;
  std::vector<std::string> patterns;
  std::vector<std::string> relations;        ///< "left of", "right of", "above", "below"
  std::vector<std::string> without_article;  ///< concepts that English uses without "a"

  /// Throws Error(kBadConfig) on lists that are missing, empty or too short, or on relations that are not those four.
  static SceneVocabulary from_config(const io::Config& config);
  int64_t num_classes(std::size_t head) const;
};

/// One or two emoji on a background: what the captions of models/mini-flux describe.
struct Scene {
  int64_t first = 0;
  int64_t second = 0;
  int64_t relation = 0;
  bool is_pair = false;  ///< otherwise `first` alone in the centre
  int64_t colour = 0;
  int64_t pattern = 0;
};

/// `count` scenes from a seed, 70 % of them pairs of two different emoji, everything else uniform. The i-th scene
/// depends on the seed and i alone (SplitMix64), on every machine. Training draws from torch's generator, never from
/// this one.
std::vector<Scene> draw_scenes(const SceneVocabulary& vocabulary, uint64_t seed, int64_t count);

/// "a fox above a red apple on a striped blue background"
std::string caption(const SceneVocabulary& vocabulary, const Scene& scene);
Labels labels(const SceneVocabulary& vocabulary, const Scene& scene);

/// Captions of draw_scenes() in the vocabulary of the scorer in `scorer_folder`.
std::vector<std::string> scene_prompts(const std::filesystem::path& scorer_folder, uint64_t seed, int64_t count);

}  // namespace rtlynx::evaluation
