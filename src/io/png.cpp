#include "io/png.h"

#include <fmt/core.h>
#include <spng.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "core/alloc.h"
#include "core/file.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

constexpr std::size_t kMaxFileBytes = 256u << 20;
constexpr std::size_t kMaxTextBytes = 1u << 20;
// Of a file that is read: all metadata together, after inflating.
constexpr std::size_t kMaxMetadataBytes = 16u << 20;

using Context = std::unique_ptr<spng_ctx, decltype(&spng_ctx_free)>;

Context make_context(int flags, const std::string& origin) {
  Context context(spng_ctx_new(flags), &spng_ctx_free);
  if (!context) throw Error(ErrorCode::kOutOfMemory, fmt::format("{}: no memory for the PNG library", origin));
  return context;
}

/// For reading; every code that is not about memory or limits says that the file is damaged.
void check(int code, const std::string& origin) {
  if (code == SPNG_OK) return;
  ErrorCode error = ErrorCode::kBadPng;
  if (code == SPNG_EMEM) error = ErrorCode::kOutOfMemory;
  if (code == SPNG_EUSER_WIDTH || code == SPNG_EUSER_HEIGHT || code == SPNG_ECHUNK_LIMITS)
    error = ErrorCode::kImageTooLarge;
  throw Error(error, fmt::format("{}: {}", origin, spng_strerror(code)));
}

bool is_printable_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7F; });
}

bool is_ascii(std::string_view text) {
  return std::ranges::none_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

void check_arguments(const std::string& origin, int64_t width, int64_t height, std::size_t bytes, const PngText& text) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {}", origin, what));
  };
  if (width < 1 || height < 1 || width > kMaxPngSide || height > kMaxPngSide) {
    refuse(fmt::format("{}x{} pixels, expected 1 to {} each", width, height, kMaxPngSide));
  }
  const auto wanted = static_cast<std::size_t>(width * height * 3);
  if (bytes != wanted) refuse(fmt::format("{}x{} pixels need {} bytes, got {}", width, height, wanted, bytes));
  for (const auto& [keyword, value] : text) {
    const bool edge_space = keyword.starts_with(' ') || keyword.ends_with(' ') || keyword.find("  ") != keyword.npos;
    if (keyword.empty() || keyword.size() > 79 || !is_printable_ascii(keyword) || edge_space) {
      refuse(fmt::format("metadata keyword {}: expected 1 to 79 ASCII characters without outer or double spaces",
                         quote(keyword)));
    }
    if (value.size() > kMaxTextBytes || value.find('\0') != value.npos || !is_utf8(value)) {
      refuse(fmt::format("metadata {}: expected at most {} bytes of UTF-8 without NUL", quote(keyword), kMaxTextBytes));
    }
  }
}

/// `texts` is read through pointers to its strings, which spng does not change.
std::vector<spng_text> to_spng(const PngText& texts) {
  static char empty[] = "";
  std::vector<spng_text> result;
  for (const auto& [keyword, value] : texts) {
    if (value.empty()) continue;  // spng refuses them
    spng_text text{};
    keyword.copy(text.keyword, sizeof(text.keyword) - 1);
    text.type = is_ascii(value) ? SPNG_TEXT : SPNG_ITXT;
    text.length = value.size();
    text.text = const_cast<char*>(value.data());
    text.language_tag = empty;
    text.translated_keyword = empty;
    result.push_back(text);
  }
  return result;
}

struct Encoded {
  std::unique_ptr<void, decltype(&std::free)> data;
  std::size_t size;
};

Encoded encode(const std::string& origin, int64_t width, int64_t height, std::span<const uint8_t> rgb,
               const PngText& text) {
  const Context context = make_context(SPNG_CTX_ENCODER, origin);
  const auto require = [&](int code) {
    if (code == SPNG_OK) return;
    throw Error(code == SPNG_EMEM ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
                fmt::format("{}: encoding the PNG: {}", origin, spng_strerror(code)));
  };
  require(spng_set_option(context.get(), SPNG_ENCODE_TO_BUFFER, 1));
  spng_ihdr header{};
  header.width = static_cast<uint32_t>(width);
  header.height = static_cast<uint32_t>(height);
  header.bit_depth = 8;
  header.color_type = SPNG_COLOR_TYPE_TRUECOLOR;
  require(spng_set_ihdr(context.get(), &header));
  std::vector<spng_text> texts = to_spng(text);
  if (!texts.empty()) require(spng_set_text(context.get(), texts.data(), static_cast<uint32_t>(texts.size())));
  require(spng_encode_image(context.get(), rgb.data(), rgb.size(), SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE));
  int code = SPNG_OK;
  std::size_t size = 0;
  void* data = spng_get_png_buffer(context.get(), &size, &code);
  Encoded encoded{{data, &std::free}, size};
  require(data == nullptr && code == SPNG_OK ? static_cast<int>(SPNG_EMEM) : code);
  return encoded;
}

std::string latin1_to_utf8(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      result += c;
    } else {
      result += static_cast<char>(0xC0 | byte >> 6);
      result += static_cast<char>(0x80 | (byte & 0x3F));
    }
  }
  return result;
}

/// A context that holds the file and has read everything before the image data.
Context open_png(std::span<const std::byte> file, const std::string& origin, PngImage& image) {
  Context context = make_context(0, origin);
  constexpr auto kSide = static_cast<uint32_t>(kMaxPngSide);
  check(spng_set_image_limits(context.get(), kSide, kSide), origin);
  check(spng_set_chunk_limits(context.get(), kMaxMetadataBytes, kMaxMetadataBytes), origin);
  check(spng_set_png_buffer(context.get(), file.data(), file.size()), origin);
  spng_ihdr header{};
  check(spng_get_ihdr(context.get(), &header), origin);
  image.width = header.width;
  image.height = header.height;
  return context;
}

void read_texts(spng_ctx* context, const std::string& origin, PngText& result) {
  uint32_t count = 0;
  const int code = spng_get_text(context, nullptr, &count);
  if (code == SPNG_ECHUNKAVAIL) return;  // the file has none
  check(code, origin);
  std::vector<spng_text> texts(count);
  check(spng_get_text(context, texts.data(), &count), origin);
  for (const spng_text& text : texts) {
    const std::string_view value(text.text, text.length);
    const std::string_view keyword(text.keyword, ::strnlen(text.keyword, sizeof(text.keyword)));
    result.emplace(is_utf8(keyword) ? std::string(keyword) : latin1_to_utf8(keyword),
                   is_utf8(value) ? std::string(value) : latin1_to_utf8(value));
  }
}

std::string read_file(const std::filesystem::path& path) {
  const ReadFile file = ReadFile::open(path);
  if (file.size() > kMaxFileBytes) {
    throw Error(ErrorCode::kImageTooLarge,
                fmt::format("{}: {} bytes, at most {} are read", path.string(), file.size(), kMaxFileBytes));
  }
  return read_whole_file(path, kMaxFileBytes);
}

}  // namespace

void write_png(const std::filesystem::path& path, int64_t width, int64_t height, std::span<const uint8_t> rgb,
               const PngText& text) {
  or_out_of_memory(path.string(), [&] {
    check_arguments(path.string(), width, height, rgb.size(), text);
    const Encoded encoded = encode(path.string(), width, height, rgb, text);
    write_atomically(path, std::string_view(static_cast<const char*>(encoded.data.get()), encoded.size));
  });
}

PngImage read_png(const std::filesystem::path& path) {
  const std::string origin = path.string();
  return or_out_of_memory(origin, [&] {
    const std::string contents = read_file(path);
    PngImage image;
    const Context context = open_png(std::as_bytes(std::span(contents)), origin, image);
    read_texts(context.get(), origin, image.text);
    std::size_t size = 0;
    check(spng_decoded_image_size(context.get(), SPNG_FMT_RGB8, &size), origin);
    image.rgb.resize(size);
    check(spng_decode_image(context.get(), image.rgb.data(), size, SPNG_FMT_RGB8, 0), origin);
    // The pixels may be complete in a file that ends too early.
    check(spng_decode_chunks(context.get()), origin);
    return image;
  });
}

PngImage parse_png_text(std::span<const std::byte> file, const std::string& origin) {
  return or_out_of_memory(origin, [&] {
    PngImage image;
    const Context context = open_png(file, origin, image);
    read_texts(context.get(), origin, image.text);
    return image;
  });
}

PngImage read_png_text(const std::filesystem::path& path) {
  const std::string contents = or_out_of_memory(path.string(), [&] { return read_file(path); });
  return parse_png_text(std::as_bytes(std::span(contents)), path.string());
}

}  // namespace rtlynx::io
