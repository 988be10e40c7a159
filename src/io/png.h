#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace rtlynx::io {

/// Keyword -> UTF-8 text; "parameters" is what A1111, stable-diffusion.cpp and RT-Lynx keep their settings under.
using PngText = std::map<std::string, std::string>;

/// The largest width and height that are written or read.
inline constexpr int64_t kMaxPngSide = 16384;

struct PngImage {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb;  ///< 3 bytes a pixel, row-major; empty from read_png_text
  PngText text;
};

/// Writes 8-bit RGB, `rgb` being width * height * 3 bytes, atomically; the texts as tEXt where they are ASCII, else as
/// iTXt; empty ones are left out. Equal inputs give equal bytes. Throws Error: kInvalidArgument (sizes, a keyword that
/// is not 1 to 79 printable ASCII characters, a text that is not UTF-8, holds NUL or passes 1 MiB), kOutOfMemory,
/// kNotAFile, kWriteFailed.
void write_png(const std::filesystem::path& path, int64_t width, int64_t height, std::span<const uint8_t> rgb,
               const PngText& text);

/// Any PNG as 8-bit RGB (alpha dropped, 16 bits cut to 8) with its texts. Texts that are not UTF-8 are taken as
/// Latin-1; of two texts with one keyword the first stays. Throws Error: kBadPng, kImageTooLarge (also
/// for more than 16 MiB of metadata), kOutOfMemory and what
/// ReadFile throws.
PngImage read_png(const std::filesystem::path& path);

/// Size and texts only, without decoding the pixels: what stands before the image data, where all writers put it.
PngImage read_png_text(const std::filesystem::path& path);
/// The same of a file in memory; `origin` names it.
PngImage parse_png_text(std::span<const std::byte> file, const std::string& origin);

}  // namespace rtlynx::io
