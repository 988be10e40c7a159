#include "evaluation/scenes.h"

#include <fmt/format.h>

#include <algorithm>

#include "rtlynx/status.h"

namespace rtlynx::evaluation {
namespace {

/// Steele, Lea, Flood 2014; a counter-based stream, so that scene i needs no scene before it.
class SplitMix64 {
 public:
  SplitMix64(uint64_t seed, uint64_t stream) : state_(mix(seed) ^ mix(stream + 0x632BE59BD9B4E019ULL)) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15ULL;
    return mix(state_);
  }
  /// Uniform in [0, bound): the high word of a 64 x 64 bit product; its bias is below 2^-57 for these bounds.
  int64_t below(std::size_t bound) {
    return static_cast<int64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }

 private:
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

constexpr std::array<std::string_view, 4> kRelations = {"left of", "right of", "above", "below"};
/// Where the first and the second emoji of each relation stand.
constexpr std::array<std::array<Head, 2>, 4> kPlaces = {{{Head::kLeft, Head::kRight},
                                                         {Head::kRight, Head::kLeft},
                                                         {Head::kTop, Head::kBottom},
                                                         {Head::kBottom, Head::kTop}}};
constexpr int64_t kPairPercent = 70;

std::string with_article(std::string_view words) {
  const bool starts_with_vowel = std::string_view("aeiou").find(words.front()) != std::string_view::npos;
  return fmt::format("{} {}", starts_with_vowel ? "an" : "a", words);
}

}  // namespace

SceneVocabulary SceneVocabulary::from_config(const io::Config& config) {
  SceneVocabulary vocabulary;
  vocabulary.concepts = config.texts("concepts");
  vocabulary.colours = config.texts("colours");
  vocabulary.patterns = config.texts("patterns");
  vocabulary.relations = config.texts("relations");
  vocabulary.without_article = config.texts("without_article");
  const auto refuse = [&](std::string_view key, std::string_view wanted) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: {}: expected {}", config.origin(), key, wanted));
  };
  if (vocabulary.concepts.size() < 2) refuse("concepts", "at least two names");
  if (vocabulary.colours.empty()) refuse("colours", "at least one name");
  if (vocabulary.patterns.empty()) refuse("patterns", "at least one name");
  if (!std::equal(vocabulary.relations.begin(), vocabulary.relations.end(), kRelations.begin(), kRelations.end())) {
    refuse("relations", "left of, right of, above, below");
  }
  for (const auto* list : {&vocabulary.concepts, &vocabulary.colours, &vocabulary.patterns}) {
    if (std::any_of(list->begin(), list->end(), [](const std::string& name) { return name.empty(); })) {
      refuse("concepts, colours, patterns", "no empty name");
    }
  }
  return vocabulary;
}

int64_t SceneVocabulary::num_classes(std::size_t head) const {
  if (head < kNumPositions) return static_cast<int64_t>(concepts.size()) + 1;
  return static_cast<int64_t>(static_cast<Head>(head) == Head::kColour ? colours.size() : patterns.size());
}

std::vector<Scene> draw_scenes(const SceneVocabulary& vocabulary, uint64_t seed, int64_t count) {
  std::vector<Scene> scenes(static_cast<std::size_t>(std::max<int64_t>(count, 0)));
  for (std::size_t i = 0; i < scenes.size(); ++i) {
    SplitMix64 random(seed, i);
    Scene& scene = scenes[i];
    scene.first = random.below(vocabulary.concepts.size());
    scene.second = random.below(vocabulary.concepts.size() - 1);
    if (scene.second >= scene.first) ++scene.second;  // never the same emoji twice
    scene.relation = random.below(vocabulary.relations.size());
    scene.is_pair = random.below(100) < kPairPercent;
    scene.colour = random.below(vocabulary.colours.size());
    scene.pattern = random.below(vocabulary.patterns.size());
  }
  return scenes;
}

std::string caption(const SceneVocabulary& vocabulary, const Scene& scene) {
  const auto noun = [&](int64_t concept_index) {
    const std::string& name = vocabulary.concepts[static_cast<std::size_t>(concept_index)];
    const auto& bare = vocabulary.without_article;
    return std::find(bare.begin(), bare.end(), name) == bare.end() ? with_article(name) : name;
  };
  std::string text = noun(scene.first);
  if (scene.is_pair) {
    text += fmt::format(" {} {}", vocabulary.relations[static_cast<std::size_t>(scene.relation)], noun(scene.second));
  }
  const std::string ground =
      fmt::format("{} {} background", vocabulary.patterns[static_cast<std::size_t>(scene.pattern)],
                  vocabulary.colours[static_cast<std::size_t>(scene.colour)]);
  return fmt::format("{} on {}", text, with_article(ground));
}

Labels labels(const SceneVocabulary& vocabulary, const Scene& scene) {
  Labels result;
  result.fill(static_cast<int64_t>(vocabulary.concepts.size()));
  const auto at = [&](Head head) -> int64_t& { return result[static_cast<std::size_t>(head)]; };
  if (scene.is_pair) {
    const auto& places = kPlaces[static_cast<std::size_t>(scene.relation)];
    at(places[0]) = scene.first;
    at(places[1]) = scene.second;
  } else {
    at(Head::kCentre) = scene.first;
  }
  at(Head::kColour) = scene.colour;
  at(Head::kPattern) = scene.pattern;
  return result;
}

std::vector<std::string> scene_prompts(const std::filesystem::path& scorer_folder, uint64_t seed, int64_t count) {
  const auto vocabulary = SceneVocabulary::from_config(io::Config::read(scorer_folder / "config.json"));
  std::vector<std::string> prompts;
  for (const Scene& scene : draw_scenes(vocabulary, seed, count)) prompts.push_back(caption(vocabulary, scene));
  return prompts;
}

}  // namespace rtlynx::evaluation
