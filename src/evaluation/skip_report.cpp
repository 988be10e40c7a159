#include "evaluation/skip_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

namespace rtlynx::evaluation {
namespace {

using calibration::SkipPoint;
using calibration::SkipResult;

constexpr double kLeft = 70, kTop = 70, kWidth = 560, kHeight = 320;

/// A kind of point: how it is drawn.
struct Series {
  std::string_view choice;
  const char* label;
  const char* colour;
};
constexpr std::array<Series, 4> kSeries = {{{"greedy", "chosen, measured again in each round", "#123f6d"},
                                            {"beyond", "further, by damage alone", "#7fb2e5"},
                                            {"damage-alone", "the same budget by damage alone", "#e08a2e"},
                                            {"local-error", "by the linears' own error", "#b03030"}}};

/// Maps shares and damages to pixels.
struct Axes {
  double most_damage = 0;
  double tick = 0;  ///< damage between two lines
  double x(double share) const { return kLeft + kWidth * share; }
  double y(double damage) const { return kTop + kHeight * (1 - damage / most_damage); }
};

/// The largest damage rounded up to a whole number of ticks of 1, 2 or 5 times a power of ten.
Axes axes_for(const std::vector<SkipPoint>& curve) {
  double largest = 0;
  for (const SkipPoint& point : curve) largest = std::max({largest, point.measured, point.predicted});
  if (!(largest > 0)) return {1, 0.25};
  const double power = std::pow(10, std::floor(std::log10(largest)));
  const double lead = largest / power;
  const double tick = power * (lead > 5 ? 2 : lead > 2 ? 1 : 0.5);
  return {std::ceil(largest / tick - 1e-9) * tick, tick};
}

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, text);
}

std::string grid(const Axes& axes) {
  std::string svg;
  for (int i = 0; i <= 10; i += 2) {
    const double x = axes.x(i / 10.0);
    svg += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#dddddd\"/>\n", x, kTop,
                       kTop + kHeight);
    svg += text_at(x, kTop + kHeight + 16, "middle", fmt::format("{} %", 10 * i));
  }
  for (int i = 0; i * axes.tick <= axes.most_damage * (1 + 1e-9); ++i) {
    const double y = axes.y(i * axes.tick);
    svg += fmt::format("<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#dddddd\"/>\n", kLeft,
                       kLeft + kWidth, y);
    svg += text_at(kLeft - 6, y + 4, "end", fmt::format("{:.3g}", i * axes.tick));
  }
  svg += text_at(kLeft + kWidth / 2, kTop + kHeight + 34, "middle", "FLOPs of the linears that run sparse");
  return svg + text_at(8, kTop - 10, "start", "damage: relative squared error of the velocity");
}

/// A line through points, the sparsest first.
std::string line_through(const Axes& axes, std::vector<SkipPoint> points, double SkipPoint::*damage,
                         const char* style) {
  std::stable_sort(points.begin(), points.end(),
                   [](const SkipPoint& a, const SkipPoint& b) { return a.sparse_flops > b.sparse_flops; });
  std::string path;
  for (const SkipPoint& point : points) {
    path += fmt::format("{:.1f},{:.1f} ", axes.x(point.sparse_flops), axes.y(point.*damage));
  }
  if (!path.empty()) path.pop_back();
  return fmt::format("<polyline fill=\"none\" {} points=\"{}\"/>\n", style, path);
}

std::string dots(const Axes& axes, const std::vector<SkipPoint>& curve) {
  std::string svg;
  double legend_y = 16;
  for (const Series& series : kSeries) {
    const auto dot = [&](double x, double y) {
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>\n", x, y, series.colour);
    };
    bool drawn = false;
    for (const SkipPoint& point : curve) {
      if (point.choice != series.choice) continue;
      svg += dot(axes.x(point.sparse_flops), axes.y(point.measured));
      drawn = true;
    }
    if (!drawn) continue;
    svg += dot(kLeft + 330, legend_y - 4) + text_at(kLeft + 340, legend_y, "start", series.label);
    legend_y += 14;
  }
  return svg;
}

}  // namespace

std::string skip_curve_csv(const SkipResult& result) {
  std::string text = "choice,linears_dense,sparse_flops,damage_predicted,damage_measured\n";
  for (const SkipPoint& point : result.choice.curve) {
    text += fmt::format("{},{},{:.6f},{:.6e},{:.6e}\n", point.choice, point.num_dense, point.sparse_flops,
                        point.predicted, point.measured);
  }
  return text;
}

std::string skip_linears_csv(const SkipResult& result) {
  std::string text = "linear,decision,place,flops,damage_alone,damage_avoided,relative_error\n";
  for (std::size_t i = 0; i < result.names.size(); ++i) {
    const auto& order = result.choice.order;
    const auto place = static_cast<std::size_t>(std::find(order.begin(), order.end(), i) - order.begin());
    const bool chosen = place < order.size();
    text +=
        fmt::format("{},{},{},{:.6f},{:.6e},{},{:.6f}\n", result.names[i], result.choice.sparse[i] ? "sparse" : "dense",
                    chosen ? std::to_string(place + 1) : "", result.shares[i], result.choice.alone[i],
                    chosen ? fmt::format("{:.6e}", result.choice.gains[place]) : "", result.local_errors[i]);
  }
  return text;
}

std::string skip_curve_svg(const SkipResult& result) {
  const std::vector<SkipPoint>& curve = result.choice.curve;
  const Axes axes = axes_for(curve);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kLeft + kWidth + 40, kTop + kHeight + 50);
  svg += grid(axes);
  std::vector<SkipPoint> path;
  for (const SkipPoint& point : curve) {
    if (point.choice == "greedy" || point.choice == "beyond") path.push_back(point);
  }
  svg += line_through(axes, path, &SkipPoint::predicted, "stroke=\"#b0b0b0\" stroke-dasharray=\"4 3\"");
  svg += line_through(axes, path, &SkipPoint::measured, "stroke=\"#123f6d\"");
  svg += dots(axes, curve);
  svg += text_at(8, 16, "start",
                 fmt::format("{} of {} linears left dense: damage {:.2e} instead of {:.2e}", result.choice.order.size(),
                             result.names.size(), result.choice.damage, result.choice.damage_all));
  svg += text_at(8, 32, "start", "dashed: the sum of the damages of each linear alone");
  return svg + "</svg>\n";
}

}  // namespace rtlynx::evaluation
