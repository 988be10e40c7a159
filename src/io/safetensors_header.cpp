#include "io/safetensors_header.h"

#include <fmt/core.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

using nlohmann::json;

constexpr std::string_view kMetadataKey = "__metadata__";

std::optional<DType> dtype_of(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    if (dtype_name(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

/// Reads a text and tells everyone who holds `position` how far the parser has come.
class CountingIterator {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** position) : at_(at), position_(position) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *position_ = ++at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** position_;
};

/// Takes the header's JSON apart event by event; builds no tree, so that memory stays linear in what is kept.
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  HeaderHandler(std::string_view text, const std::string& origin)
      : text_(text), position_(text.data()), origin_(origin) {}

  CountingIterator begin() { return {text_.data(), &position_}; }
  CountingIterator end() { return {text_.data() + text_.size(), &position_}; }

  SafetensorsHeader header;
  /// For each tensor, where its name ends in the file. 32 bits hold any position in a header.
  std::vector<uint32_t> name_ends;

  bool null() override {
    const bool absent_metadata = where_ == Where::kHeader && key_ == kMetadataKey;
    return absent_metadata || other_scalar("null");
  }
  bool boolean(bool) override { return other_scalar("a boolean"); }
  bool number_integer(number_integer_t) override { return other_scalar("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return other_scalar("a fraction or too large a number");
  }
  bool binary(binary_t&) override { return other_scalar("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (where_ == Where::kShape) {
      TensorInfo& tensor = header.tensors.back();
      if (tensor.shape.size() == kSafetensorsMaxRank) {
        fail(ErrorCode::kSafetensorsRank, fmt::format("more than {} dimensions", kSafetensorsMaxRank));
      }
      if (value > kSafetensorsMaxTensorBytes)
        fail(ErrorCode::kSafetensorsShapeOverflow, fmt::format("dimension {}", value));
      tensor.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (where_ == Where::kOffsets) {
      if (offsets_seen_ == 2) fail(ErrorCode::kSafetensorsFieldType, "data_offsets: expected two numbers, got more");
      (offsets_seen_++ == 0 ? header.tensors.back().begin : header.tensors.back().end) = value;
      return true;
    }
    return other_scalar("a number");
  }

  bool string(string_t& value) override {
    if (where_ == Where::kMetadata) {
      header.metadata[metadata_key_] = std::move(value);
      return true;
    }
    if (where_ == Where::kEntry && field_ == Field::kDType) {
      const auto dtype = dtype_of(value);
      if (!dtype) fail(ErrorCode::kSafetensorsDType, fmt::format("unknown dtype {}", quote(value)));
      header.tensors.back().dtype = *dtype;
      return true;
    }
    return other_scalar("a text");
  }

  bool start_object(std::size_t) override {
    deeper();
    if (where_ == Where::kTop) {
      where_ = Where::kHeader;
    } else if (where_ == Where::kHeader) {
      where_ = key_ == kMetadataKey ? Where::kMetadata : Where::kEntry;
      if (where_ == Where::kEntry) start_entry();
    } else {
      start_ignored("an object");
    }
    return true;
  }

  bool start_array(std::size_t) override {
    deeper();
    if (where_ == Where::kEntry && field_ == Field::kShape) {
      where_ = Where::kShape;
    } else if (where_ == Where::kEntry && field_ == Field::kOffsets) {
      where_ = Where::kOffsets;
    } else {
      start_ignored("an array");
    }
    return true;
  }

  bool end_object() override {
    if (where_ == Where::kEntry) finish_entry();
    return shallower(where_ == Where::kHeader ? Where::kTop : Where::kHeader);
  }

  bool end_array() override {
    if (where_ == Where::kOffsets && offsets_seen_ != 2) {
      fail(ErrorCode::kSafetensorsFieldType, fmt::format("data_offsets: expected two numbers, got {}", offsets_seen_));
    }
    return shallower(Where::kEntry);
  }

  bool key(string_t& name) override {
    if (where_ == Where::kHeader) {
      start_key(name);
    } else if (where_ == Where::kMetadata) {
      if (header.metadata.size() == kSafetensorsMaxMetadataKeys) {
        fail(ErrorCode::kSafetensorsMetadata, fmt::format("more than {} keys", kSafetensorsMaxMetadataKeys));
      }
      if (!header.metadata.emplace(name, "").second) {
        fail(ErrorCode::kSafetensorsDuplicateMetadata, fmt::format("key {} stands there twice", quote(name)));
      }
      metadata_key_ = name;
    } else if (where_ == Where::kEntry) {
      start_field(name);
    }
    return true;
  }

  bool parse_error(std::size_t, const std::string& last_token, const json::exception&) override {
    fail(ErrorCode::kSafetensorsHeaderJson, fmt::format("syntax error near {}", quote(last_token, 40)));
  }

  /// Throws with the file, the tensor where there is one, and the byte the parser has reached.
  [[noreturn]] void fail(ErrorCode code, std::string_view what) const {
    const uint64_t byte = kSafetensorsLengthBytes + static_cast<uint64_t>(position_ - text_.data());
    const std::string inside =
        key_.empty() ? "" : fmt::format("{} {}", key_ == kMetadataKey ? "key" : "tensor", quote(key_));
    throw Error(code,
                fmt::format("{}: {}{}header byte {}: {}", origin_, inside, inside.empty() ? "" : ": ", byte, what));
  }

 private:
  enum class Where { kTop, kHeader, kMetadata, kEntry, kShape, kOffsets, kIgnored };
  enum class Field { kDType, kShape, kOffsets, kUnknown };

  void start_key(const std::string& name) {
    key_ = name;
    if (name == kMetadataKey) {
      if (std::exchange(metadata_seen_, true)) fail(ErrorCode::kSafetensorsDuplicateMetadata, "stands there twice");
      return;
    }
    const uint64_t byte = kSafetensorsLengthBytes + static_cast<uint64_t>(position_ - text_.data());
    check_tensor_name(name, fmt::format("{}: header byte {}", origin_, byte));
  }

  void start_entry() {
    if (header.tensors.size() == kSafetensorsMaxTensors) {
      fail(ErrorCode::kSafetensorsTooManyTensors, fmt::format("more than {} tensors", kSafetensorsMaxTensors));
    }
    header.tensors.emplace_back().name = key_;
    name_ends.push_back(
        static_cast<uint32_t>(kSafetensorsLengthBytes + static_cast<uint64_t>(position_ - text_.data())));
    fields_seen_ = 0;
    offsets_seen_ = 0;
  }

  void start_field(std::string_view name) {
    field_ = name == "dtype"          ? Field::kDType
             : name == "shape"        ? Field::kShape
             : name == "data_offsets" ? Field::kOffsets
                                      : Field::kUnknown;
    if (field_ == Field::kUnknown) return;  // for formats to come
    const unsigned bit = 1u << static_cast<unsigned>(field_);
    if ((fields_seen_ & bit) != 0)
      fail(ErrorCode::kSafetensorsDuplicateField, fmt::format("{} stands there twice", name));
    fields_seen_ |= bit;
  }

  void finish_entry() const {
    constexpr std::string_view kNames[] = {"dtype", "shape", "data_offsets"};
    for (unsigned i = 0; i < std::size(kNames); ++i) {
      if ((fields_seen_ & (1u << i)) == 0)
        fail(ErrorCode::kSafetensorsFieldMissing, fmt::format("{} is missing", kNames[i]));
    }
  }

  /// A scalar where the format has another type, or inside of something that is ignored.
  bool other_scalar(std::string_view got) const {
    if (where_ != Where::kIgnored) expect_ignorable(got);
    return true;
  }

  void start_ignored(std::string_view got) {
    if (where_ == Where::kIgnored) return;
    expect_ignorable(got);
    where_ = Where::kIgnored;
    ignored_from_ = depth_;
  }

  /// Throws unless the current value belongs to a field that the format does not have.
  void expect_ignorable(std::string_view got) const {
    switch (where_) {
      case Where::kTop: fail(ErrorCode::kSafetensorsHeaderType, fmt::format("expected an object, got {}", got));
      case Where::kHeader:
        fail(key_ == kMetadataKey ? ErrorCode::kSafetensorsMetadata : ErrorCode::kSafetensorsHeaderType,
             fmt::format("expected an object, got {}", got));
      case Where::kMetadata:
        fail(ErrorCode::kSafetensorsMetadata, fmt::format("{}: expected a text, got {}", quote(metadata_key_), got));
      case Where::kShape:
      case Where::kOffsets:
        fail(ErrorCode::kSafetensorsNumber, fmt::format("{}: expected an unsigned integer, got {}",
                                                        where_ == Where::kShape ? "shape" : "data_offsets", got));
      case Where::kEntry:
        if (field_ == Field::kDType)
          fail(ErrorCode::kSafetensorsFieldType, fmt::format("dtype: expected a text, got {}", got));
        if (field_ != Field::kUnknown) {
          fail(ErrorCode::kSafetensorsFieldType,
               fmt::format("{}: expected an array, got {}", field_ == Field::kShape ? "shape" : "data_offsets", got));
        }
        return;
      case Where::kIgnored: return;
    }
  }

  void deeper() {
    if (++depth_ > kSafetensorsMaxDepth) {
      fail(ErrorCode::kSafetensorsHeaderDepth, fmt::format("nested deeper than {}", kSafetensorsMaxDepth));
    }
  }

  bool shallower(Where outside) {
    if (where_ != Where::kIgnored) {
      where_ = outside;
    } else if (depth_ == ignored_from_) {
      where_ = Where::kEntry;
    }
    --depth_;
    return true;
  }

  std::string_view text_;
  const char* position_;
  const std::string& origin_;
  Where where_ = Where::kTop;
  Field field_ = Field::kUnknown;
  std::string key_;
  std::string metadata_key_;
  bool metadata_seen_ = false;
  unsigned fields_seen_ = 0;
  int offsets_seen_ = 0;
  std::size_t depth_ = 0;
  std::size_t ignored_from_ = 0;
};

void check_text(std::string_view text, const std::string& origin) {
  const auto fail = [&](ErrorCode code, std::size_t at, std::string_view what) {
    throw Error(code, fmt::format("{}: header byte {}: {}", origin, kSafetensorsLengthBytes + at, what));
  };
  if (const auto at = first_invalid_utf8(text)) fail(ErrorCode::kSafetensorsHeaderUtf8, *at, "invalid UTF-8");
  // nlohmann's parser skips a byte order mark and takes NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF")) fail(ErrorCode::kSafetensorsHeaderJson, 0, "byte order mark");
  if (const auto at = text.find('\0'); at != text.npos) fail(ErrorCode::kSafetensorsHeaderJson, at, "NUL");
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t file_size, const std::string& origin) {
  check_text(text, origin);
  HeaderHandler handler(text, origin);
  if (!json::sax_parse(handler.begin(), handler.end(), &handler)) {
    throw Error(ErrorCode::kInternal, fmt::format("{}: header parser stopped without a reason", origin));
  }
  SafetensorsHeader header = std::move(handler.header);
  check_layout(header, handler.name_ends, kSafetensorsLengthBytes + text.size(), file_size, origin);
  return header;
}

}  // namespace rtlynx::io
