#include "evaluation/skip_report.h"

#include <gtest/gtest.h>

namespace rtlynx::evaluation {
namespace {

calibration::SkipResult small_result() {
  calibration::SkipResult result;
  result.names = {"blocks.0.to_q", "blocks.0.to_k"};
  result.shares = {0.25, 0.75};
  result.local_errors = {0.125, 0.0625};
  result.choice.sparse = {false, true};
  result.choice.order = {0};
  result.choice.gains = {0.003};
  result.choice.alone = {0.002, 0.001};
  result.choice.damage_all = 0.004;
  result.choice.damage = 0.001;
  result.choice.curve = {{"greedy", 0, 1.0, 0.003, 0.004},
                         {"greedy", 1, 0.75, 0.001, 0.001},
                         {"local-error", 1, 0.75, 0.001, 0.0015},
                         {"beyond", 2, 0.0, 0, 0}};
  return result;
}

TEST(SkipReport, TablesHoldEveryFigure) {
  EXPECT_EQ(skip_curve_csv(small_result()),
            "choice,linears_dense,sparse_flops,damage_predicted,damage_measured\n"
            "greedy,0,1.000000,3.000000e-03,4.000000e-03\n"
            "greedy,1,0.750000,1.000000e-03,1.000000e-03\n"
            "local-error,1,0.750000,1.000000e-03,1.500000e-03\n"
            "beyond,2,0.000000,0.000000e+00,0.000000e+00\n");
  EXPECT_EQ(skip_linears_csv(small_result()),
            "linear,decision,place,flops,damage_alone,damage_avoided,relative_error\n"
            "blocks.0.to_q,dense,1,0.250000,2.000000e-03,3.000000e-03,0.125000\n"
            "blocks.0.to_k,sparse,,0.750000,1.000000e-03,,0.062500\n");
}

TEST(SkipReport, ThePictureHoldsEveryPointWhereItBelongs) {
  const std::string svg = skip_curve_svg(small_result());
  const auto count = [&](const std::string& part) {
    int found = 0;
    for (std::size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("<circle"), 4 + 3) << "a point each, and three kinds in the legend";
  EXPECT_EQ(count("<polyline"), 2);
  // The plot is 560 x 320 at (70, 70), and 0.004 is its top.
  EXPECT_EQ(count("cx=\"630.0\" cy=\"70.0\""), 1);
  EXPECT_EQ(count("cx=\"490.0\" cy=\"310.0\""), 1);
  EXPECT_EQ(count("cx=\"490.0\" cy=\"270.0\""), 1);
  EXPECT_EQ(count("cx=\"70.0\" cy=\"390.0\""), 1);
  EXPECT_NE(svg.find("1 of 2 linears left dense: damage 1.00e-03 instead of 4.00e-03"), std::string::npos);
}

TEST(SkipReport, ACurveWithoutDamageCanBeDrawn) {
  calibration::SkipResult result = small_result();
  result.choice.curve = {{"greedy", 0, 1.0, 0, 0}};
  const std::string svg = skip_curve_svg(result);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

}  // namespace
}  // namespace rtlynx::evaluation
