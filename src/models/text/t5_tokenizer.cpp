#include "models/text/t5_tokenizer.h"

#include <fmt/core.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/utf8.h"
#include "models/text/sentencepiece_model.h"
#include "models/text/unicode.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr char32_t kSpaceMark = 0x2581;  // starts every word
constexpr int64_t kUnknownId = 2;

const std::map<std::string, std::string> kNamedTokens = {
    {"eos_token", "</s>"}, {"pad_token", "<pad>"}, {"unk_token", "<unk>"}};

std::string sentinel(int64_t i) {
  return fmt::format("<extra_id_{}>", i);
}

std::vector<std::pair<std::string, double>> vocabulary(const SentencePieceModel& model, int64_t extra_ids) {
  std::vector<std::pair<std::string, double>> pieces;
  for (const auto& piece : model.pieces) pieces.emplace_back(piece.text, piece.score);
  for (int64_t i = extra_ids; i-- > 0;) pieces.emplace_back(sentinel(i), 0.0);
  return pieces;
}

/// The added tokens: the config's, the model's control pieces and user-defined pieces, the sentinels.
std::vector<AddedToken> added_tokens(const SentencePieceModel& model, const TokenizerConfig& config,
                                     const Unigram& unigram, const std::filesystem::path& folder) {
  std::vector<AddedToken> tokens = config.added;
  std::set<std::string> known;
  for (const AddedToken& token : tokens) known.insert(token.content);
  const auto add = [&](const std::string& content) {
    if (!known.insert(content).second) return;
    tokens.emplace_back();
    tokens.back().content = content;
  };
  for (const auto& piece : model.pieces) {
    using Type = SentencePieceModel::Type;
    if (piece.type == Type::kControl || piece.type == Type::kUserDefined) add(piece.text);
  }
  for (int64_t i = 0; i < config.extra_ids; ++i) add(sentinel(i));
  resolve_ids(
      tokens, unigram.size(), [&](std::string_view token) { return unigram.find(token); }, folder);
  return tokens;
}

SentencePieceModel read_checked(const std::filesystem::path& path, const TokenizerConfig& config) {
  SentencePieceModel model = SentencePieceModel::read(path);
  std::set<std::string_view> texts;
  for (const auto& piece : model.pieces) texts.insert(piece.text);
  const auto has = [&](const std::string& text) { return texts.contains(text); };
  for (const auto& [key, content] : config.named) {
    if (!has(content)) {
      throw Error(ErrorCode::kBadTokenizer,
                  fmt::format("{}: {} {} is missing", path.string(), key, io::quote(content)));
    }
  }
  if (model.pieces.size() <= kUnknownId || model.pieces[kUnknownId].type != SentencePieceModel::Type::kUnknown) {
    throw Error(ErrorCode::kBadTokenizer,
                fmt::format("{}: piece {} is not the unknown piece, as it is in every T5", path.string(), kUnknownId));
  }
  for (int64_t i = 0; i < config.extra_ids; ++i) {
    if (has(sentinel(i))) {
      throw Error(ErrorCode::kBadTokenizer,
                  fmt::format("{}: {} is among the pieces; expected it after them", path.string(), sentinel(i)));
    }
  }
  return model;
}

}  // namespace

T5Tokenizer::T5Tokenizer(const std::filesystem::path& folder)
    : T5Tokenizer(folder, TokenizerConfig::read(folder, kNamedTokens)) {}

T5Tokenizer::T5Tokenizer(const std::filesystem::path& folder, const TokenizerConfig& config)
    : T5Tokenizer(folder, config, read_checked(folder / "spiece.model", config)) {}

T5Tokenizer::T5Tokenizer(const std::filesystem::path& folder, const TokenizerConfig& config,
                         const SentencePieceModel& model)
    : model_max_length_(config.model_max_length),
      charsmap_(std::make_shared<Charsmap>(model.precompiled_charsmap, (folder / "spiece.model").string())),
      unigram_(vocabulary(model, config.extra_ids), kUnknownId),
      added_(added_tokens(model, config, unigram_, folder),
             [charsmap = charsmap_](std::string_view text) { return charsmap->normalize(text); }),
      eos_(unigram_.find(config.named.at("eos_token"))),
      pad_(unigram_.find(config.named.at("pad_token"))) {}

TokenIds T5Tokenizer::encode(std::string_view prompt, int64_t max_length) const {
  check_prompt(prompt);
  std::vector<int64_t> ids;
  for (const AddedTokens::Segment& segment : added_.split(prompt)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_text(segment.text, ids);
    }
  }
  return frame_tokens(std::move(ids), {}, {eos_}, pad_, max_length);
}

void T5Tokenizer::encode_text(std::string_view text, std::vector<int64_t>& ids) const {
  // A word goes from one space mark to the next; white space and a mark in the text itself both start one.
  std::string word;
  const auto finish_word = [&] {
    unigram_.encode(word, ids);
    word.clear();
  };
  for (const char32_t point : code_points(text)) {
    if (is_white_space(point)) {
      finish_word();
      continue;
    }
    if (point == kSpaceMark) finish_word();
    if (word.empty() && point != kSpaceMark) append_utf8(word, kSpaceMark);
    append_utf8(word, point);
  }
  finish_word();
}

}  // namespace rtlynx::models
