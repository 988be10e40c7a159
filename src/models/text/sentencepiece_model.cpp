#include "models/text/sentencepiece_model.h"

#include <fmt/core.h>

#include <bit>
#include <cmath>
#include <functional>
#include <unordered_set>

#include "core/file.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr std::size_t kMaxFileBytes = 64u << 20;  // T5's takes 0.8 MB, UMT5's (256,000 pieces) 4.5 MB
constexpr std::size_t kMaxPieces = 1u << 21;
constexpr std::size_t kMaxPieceBytes = 4096;

/// Reads one message of protocol buffers' wire format.
class WireReader {
 public:
  /// `offset` is where `bytes` starts in the file, for messages.
  WireReader(std::string_view bytes, std::size_t offset, const std::string& origin)
      : bytes_(bytes), offset_(offset), origin_(origin) {}

  /// One field: the number of the wire type tells which of the values is set.
  struct Field {
    uint64_t number = 0;
    uint64_t wire_type = 0;
    uint64_t integer = 0;    // wire type 0, 1, 5
    std::string_view bytes;  // wire type 2
    std::size_t offset = 0;  // of the value in the file
  };

  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t tag = varint();
    field.number = tag >> 3;
    field.wire_type = tag & 7;
    if (field.number == 0) refuse("field number 0");
    switch (field.wire_type) {
      case 0: field.integer = varint(); break;
      case 1: field.integer = fixed(8); break;
      case 2: {
        const uint64_t size = varint();
        if (size > bytes_.size() - at_) refuse("a field is cut off");
        field.offset = offset_ + at_;
        field.bytes = bytes_.substr(at_, size);
        at_ += size;
        break;
      }
      case 5: field.integer = fixed(4); break;
      default: refuse(fmt::format("wire type {}", field.wire_type));
    }
    return true;
  }

  [[noreturn]] void refuse(const std::string& problem) const {
    throw Error(ErrorCode::kBadTokenizer,
                fmt::format("{}: byte {}: {}; expected a sentencepiece model", origin_, offset_ + at_, problem));
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) refuse("an integer is cut off");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    refuse("an integer of more than 10 bytes");
  }

  uint64_t fixed(std::size_t size) {
    if (size > bytes_.size() - at_) refuse("a number is cut off");
    uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes_[at_ + i])) << (8 * i);
    }
    at_ += size;
    return value;
  }

  std::string_view bytes_;
  std::size_t offset_;
  const std::string& origin_;
  std::size_t at_ = 0;
};

SentencePieceModel::Piece read_piece(const WireReader::Field& message, std::size_t index, const std::string& origin) {
  SentencePieceModel::Piece piece;
  WireReader reader(message.bytes, message.offset, origin);
  WireReader::Field field;
  while (reader.next(field)) {
    if (field.number == 1 && field.wire_type == 2) piece.text = field.bytes;
    if (field.number == 2 && field.wire_type == 5)
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.integer));
    if (field.number == 3 && field.wire_type == 0) {
      if (field.integer < 1 || field.integer > 6)
        reader.refuse(fmt::format("piece {} has type {}", index, field.integer));
      piece.type = static_cast<SentencePieceModel::Type>(field.integer);
    }
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes || !io::is_utf8(piece.text)) {
    reader.refuse(fmt::format("piece {} is {}", index, io::quote(piece.text)));
  }
  if (!std::isfinite(piece.score)) reader.refuse(fmt::format("piece {} has the score {}", index, piece.score));
  return piece;
}

}  // namespace

SentencePieceModel SentencePieceModel::read(const std::filesystem::path& path) {
  return parse(read_whole_file(path, kMaxFileBytes), path.string());
}

SentencePieceModel SentencePieceModel::parse(std::string_view bytes, const std::string& origin) {
  constexpr uint64_t kUnigram = 1;
  SentencePieceModel model;
  std::unordered_set<std::string> seen;
  WireReader reader(bytes, 0, origin);
  WireReader::Field field;
  while (reader.next(field)) {
    if (field.wire_type != 2) continue;
    WireReader inner(field.bytes, field.offset, origin);
    WireReader::Field value;
    if (field.number == 1) {
      if (model.pieces.size() == kMaxPieces) reader.refuse(fmt::format("more than {} pieces", kMaxPieces));
      model.pieces.push_back(read_piece(field, model.pieces.size(), origin));
      const std::string& text = model.pieces.back().text;
      if (!seen.insert(text).second) {
        reader.refuse(
            fmt::format("piece {}, {}, stands there a second time", model.pieces.size() - 1, io::quote(text)));
      }
    } else if (field.number == 2) {  // trainer_spec
      while (inner.next(value)) {
        if (value.number == 3 && value.wire_type == 0 && value.integer != kUnigram) {
          inner.refuse(fmt::format("model type {}, where only unigram ({}) is read", value.integer, kUnigram));
        }
      }
    } else if (field.number == 3) {  // normalizer_spec
      while (inner.next(value)) {
        if (value.number == 2 && value.wire_type == 2) model.precompiled_charsmap = value.bytes;
      }
    }
  }
  if (model.pieces.empty()) reader.refuse("no pieces");
  return model;
}

}  // namespace rtlynx::models
