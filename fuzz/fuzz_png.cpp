// Size and metadata of a PNG.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "io/png.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace rtlynx;
  try {
    const io::PngImage image = io::parse_png_text(std::as_bytes(std::span(data, size)), "fuzz");
    require(image.width >= 1 && image.width <= io::kMaxPngSide && image.height >= 1 && image.height <= io::kMaxPngSide);
    for (const auto& [keyword, text] : image.text) require(io::is_utf8(keyword) && io::is_utf8(text));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadPng || error.code() == ErrorCode::kImageTooLarge);
  }
  return 0;
}
