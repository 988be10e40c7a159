#include <cairo.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "evaluation/report.h"
#include "rtlynx/status.h"

namespace rtlynx::evaluation {
namespace {

constexpr double kMargin = 10;
constexpr double kLabelWidth = 130;
constexpr double kCaptionHeight = 62;
constexpr double kFontSize = 15;
constexpr double kLineHeight = 19;
constexpr int64_t kPictureSide = 192;  // six columns fit a screen

struct Deleter {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};
using Surface = std::unique_ptr<cairo_surface_t, Deleter>;
using Context = std::unique_ptr<cairo_t, Deleter>;

Surface new_surface(int64_t width, int64_t height) {
  Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(width), static_cast<int>(height)));
  if (cairo_surface_status(surface.get()) != CAIRO_STATUS_SUCCESS) {
    throw Error(ErrorCode::kOutOfMemory, fmt::format("contact sheet: no surface of {} x {} pixels", width, height));
  }
  return surface;
}

/// Cairo keeps a pixel as one native 32-bit word, 0x00RRGGBB.
Surface to_surface(const pipeline::Image& image) {
  Surface surface = new_surface(image.width, image.height);
  unsigned char* data = cairo_image_surface_get_data(surface.get());
  const int stride = cairo_image_surface_get_stride(surface.get());
  for (int64_t y = 0; y < image.height; ++y) {
    auto* row = reinterpret_cast<uint32_t*>(data + y * stride);
    const uint8_t* in = image.rgb.data() + y * image.width * 3;
    for (int64_t x = 0; x < image.width; ++x, in += 3)
      row[x] = (uint32_t{in[0]} << 16) | (uint32_t{in[1]} << 8) | in[2];
  }
  cairo_surface_mark_dirty(surface.get());
  return surface;
}

pipeline::Image to_image(cairo_surface_t* surface) {
  cairo_surface_flush(surface);
  pipeline::Image image;
  image.width = cairo_image_surface_get_width(surface);
  image.height = cairo_image_surface_get_height(surface);
  image.rgb.reserve(static_cast<std::size_t>(image.width * image.height * 3));
  const unsigned char* data = cairo_image_surface_get_data(surface);
  const int stride = cairo_image_surface_get_stride(surface);
  for (int64_t y = 0; y < image.height; ++y) {
    const auto* row = reinterpret_cast<const uint32_t*>(data + y * stride);
    for (int64_t x = 0; x < image.width; ++x) {
      for (const int shift : {16, 8, 0}) image.rgb.push_back(static_cast<uint8_t>(row[x] >> shift));
    }
  }
  return image;
}

/// Breaks `text` at spaces into lines that fit `width`.
void draw_wrapped(cairo_t* context, const std::string& text, double x, double y, double width) {
  std::string line;
  const auto flush = [&] {
    cairo_move_to(context, x, y);
    cairo_show_text(context, line.c_str());
    y += kLineHeight;
    line.clear();
  };
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    const std::string longer = line.empty() ? word : line + " " + word;
    cairo_text_extents_t extents;
    cairo_text_extents(context, longer.c_str(), &extents);
    if (extents.x_advance > width && !line.empty()) {
      flush();
      line = word;
    } else {
      line = longer;
    }
    begin = end + 1;
  }
  flush();
}

void draw_picture(cairo_t* context, const pipeline::Image& image, double x, double y) {
  const Surface picture = to_surface(image);
  cairo_save(context);
  cairo_translate(context, x, y);
  const double scale = static_cast<double>(kPictureSide) / static_cast<double>(std::max(image.width, image.height));
  cairo_scale(context, scale, scale);
  cairo_set_source_surface(context, picture.get(), 0, 0);
  cairo_paint(context);
  cairo_restore(context);
}

}  // namespace

pipeline::Image contact_sheet(const AblationResult& result) {
  const auto columns = static_cast<int64_t>(result.captions.size());
  const auto rows = static_cast<int64_t>(result.methods.size());
  const double step = static_cast<double>(kPictureSide) + kMargin;
  const auto width = static_cast<int64_t>(kLabelWidth + step * static_cast<double>(columns) + kMargin);
  const auto height = static_cast<int64_t>(kCaptionHeight + step * static_cast<double>(rows) + kMargin);
  const Surface sheet = new_surface(width, height);
  const Context context(cairo_create(sheet.get()));
  cairo_set_source_rgb(context.get(), 1, 1, 1);
  cairo_paint(context.get());
  cairo_select_font_face(context.get(), "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);

  for (int64_t row = 0; row < rows; ++row) {
    const double y = kCaptionHeight + static_cast<double>(row) * step;
    const MethodResult& method = result.methods[static_cast<std::size_t>(row)];
    cairo_set_source_rgb(context.get(), 0, 0, 0);
    cairo_set_font_size(context.get(), kFontSize);
    draw_wrapped(context.get(), method.name, kMargin, y + kLineHeight, kLabelWidth);
    cairo_set_font_size(context.get(), kFontSize - 3);
    draw_wrapped(context.get(), fmt::format("{:.1f} % right", 100 * method.accuracy), kMargin, y + 2 * kLineHeight,
                 kLabelWidth);
    const auto& pictures = result.pictures[static_cast<std::size_t>(row)];
    for (std::size_t column = 0; column < pictures.size(); ++column) {
      draw_picture(context.get(), pictures[column], kLabelWidth + static_cast<double>(column) * step, y);
    }
  }
  cairo_set_source_rgb(context.get(), 0, 0, 0);
  cairo_set_font_size(context.get(), kFontSize - 2);
  for (int64_t column = 0; column < columns; ++column) {
    draw_wrapped(context.get(), result.captions[static_cast<std::size_t>(column)],
                 kLabelWidth + static_cast<double>(column) * step, kLineHeight, static_cast<double>(kPictureSide));
  }
  return to_image(sheet.get());
}

}  // namespace rtlynx::evaluation
