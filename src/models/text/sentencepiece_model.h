#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rtlynx::models {

/// What a sentencepiece model file (the protocol buffer ModelProto of sentencepiece_model.proto) says of a unigram
/// vocabulary. Read by ourselves: the file is untrusted, and libsentencepiece neither hands out the normaliser's map
/// nor segments as the tokenizers library does, whose ids the model was published with.
struct SentencePieceModel {
  enum class Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;
  std::string precompiled_charsmap;  ///< empty where the model does not normalise

  /// Throws Error(kBadTokenizer) naming the file and the byte or piece: a cut or malformed message, a model that is not
  /// unigram, a piece that is empty, repeated, no UTF-8 or has a score that is not finite.
  static SentencePieceModel read(const std::filesystem::path& path);
  /// `origin` names the source in messages.
  static SentencePieceModel parse(std::string_view bytes, const std::string& origin);
};

}  // namespace rtlynx::models
