#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/kernels/linear_on_cuda.h"

namespace rtlynx::bench {
namespace {

struct Series {
  CudaContestant contestant;
  const char* colour;
};
constexpr Series kSeries[] = {{CudaContestant::kCslProduct, "#b0b0b0"},
                              {CudaContestant::kSpmm, "#7fb2e5"},
                              {CudaContestant::kLinearNoBranch, "#2f6fb3"},
                              {CudaContestant::kLinear, "#123f6d"},
                              {CudaContestant::kEngine, "#e08a2e"}};

constexpr int kLeft = 170, kWidth = 620, kBar = 11, kGap = 14, kTop = 58;
constexpr int kGroup = kBar * static_cast<int>(std::size(kSeries)) + kGap;

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, text);
}

std::string bar_at(double x, double y, double width, const char* colour) {
  return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n", x, y, width,
                     kBar - 1, colour);
}

/// The right end of the axis: the largest speed-up, rounded up to a half.
double axis_end(const std::vector<CudaBenchRow>& rows) {
  double largest = 1;
  for (const CudaBenchRow& row : rows) {
    for (const Series& series : kSeries) largest = std::max(largest, row.speedup(series.contestant));
  }
  return std::ceil(2 * largest) / 2;
}

}  // namespace

std::string cuda_plot_of(const std::vector<CudaBenchRow>& rows) {
  const double end = axis_end(rows);
  const auto x_of = [&](double speedup) { return kLeft + kWidth * speedup / end; };
  const int bottom = kTop + kGroup * static_cast<int>(rows.size());
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kLeft + kWidth + 60, bottom + 30);
  if (!rows.empty()) {
    svg += text_at(8, 16, "start",
                   fmt::format("bf16 linears on {}, over the faster of at::linear and cuBLASLt; rank {}", rows[0].gpu,
                               rows[0].rank));
  }
  double x = 8;
  for (const Series& series : kSeries) {
    svg += bar_at(x, 28, kBar, series.colour) + text_at(x + 16, 38, "start", contestant_name(series.contestant));
    x += 155;
  }
  for (double tick = 0; tick <= end + 1e-9; tick += 0.5) {
    svg += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"{3}\"/>\n", x_of(tick),
                       kTop - 6, bottom, tick == 1 ? "black" : "#dddddd");
    svg += text_at(x_of(tick), bottom + 16, "middle", fmt::format("{:.1f}x", tick));
  }
  double y = kTop;
  for (const CudaBenchRow& row : rows) {
    const LinearShape& s = row.shape;
    svg += text_at(kLeft - 8, y + kGroup / 2.0, "end", fmt::format("{} x {} x {}", s.m, s.n, s.k));
    for (const Series& series : kSeries) {
      const double speedup = row.speedup(series.contestant);
      if (speedup > 0) {
        svg += bar_at(kLeft, y, x_of(speedup) - kLeft, series.colour);
        svg += text_at(x_of(speedup) + 4, y + kBar - 2, "start", fmt::format("{:.2f}", speedup));
      }
      y += kBar;
    }
    y += kGap;
  }
  return svg + "</svg>\n";
}

}  // namespace rtlynx::bench
