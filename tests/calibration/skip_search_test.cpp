#include "calibration/skip_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "tests/core/expect_error.h"

namespace rtlynx::calibration {
namespace {

using testing::expect_error;

/// Linears whose saving is their FLOPs.
std::vector<SkipCandidate> linears_of(const std::vector<int64_t>& flops) {
  std::vector<SkipCandidate> linears;
  for (const int64_t count : flops) linears.push_back({count, static_cast<double>(count), true, 0});
  return linears;
}

/// The damage of a set is the sum of its linears' damages.
auto sum_of(const std::vector<double>& damages) {
  return [damages](const SparseSet& sparse) {
    double sum = 0;
    for (std::size_t i = 0; i < damages.size(); ++i) sum += sparse[i] ? damages[i] : 0;
    return sum;
  };
}

double share_of(const std::vector<SkipCandidate>& linears, const SparseSet& sparse) {
  int64_t all = 0, kept = 0;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    all += linears[i].flops;
    kept += sparse[i] ? linears[i].flops : 0;
  }
  return static_cast<double>(kept) / static_cast<double>(all);
}

SkipSearchOptions at_least(double share, int64_t candidates = 8, int64_t a_round = 2) {
  return {share, candidates, a_round, false};
}

TEST(SkipSearch, LeavesDenseWhatDoesMostDamageForItsFlops) {
  // For each FLOP: 0.5, 0.1, 3, 0.05, 1.
  const auto linears = linears_of({20, 20, 10, 40, 10});
  const SkipChoice choice = search_skips(linears, at_least(0.8), sum_of({10, 2, 30, 2, 10}));
  EXPECT_EQ(choice.order, (std::vector<std::size_t>{2, 4}));
  EXPECT_EQ(choice.sparse, (SparseSet{true, true, false, true, false}));
  EXPECT_EQ(choice.alone, (std::vector<double>{10, 2, 30, 2, 10}));
  EXPECT_EQ(choice.gains, (std::vector<double>{30, 10}));
  EXPECT_EQ(choice.damage_all, 54);
  EXPECT_EQ(choice.damage, 14);
  ASSERT_EQ(choice.curve.size(), 2U) << "all sparse, and after the one round";
  EXPECT_EQ(choice.curve[0].sparse_flops, 1.0);
  EXPECT_EQ(choice.curve[0].predicted, 54);
  EXPECT_EQ(choice.curve[1].sparse_flops, 0.8);
  EXPECT_EQ(choice.curve[1].measured, 14);
  EXPECT_EQ(choice.curve[1].num_dense, 2);
}

TEST(SkipSearch, KeepsTheBudgetToTheLastFlop) {
  const auto tens = linears_of(std::vector<int64_t>(10, 7));
  const auto damage = sum_of({1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  for (const auto& [share, dense] : {std::pair(1.0, 0U), {0.95, 0U}, {0.9, 1U}, {0.85, 1U}, {0.7, 3U}, {0.1, 9U}}) {
    EXPECT_EQ(search_skips(tens, at_least(share), damage).order.size(), dense) << share;
  }
}

TEST(SkipSearch, NeverPassesTheBudgetNorLeavesRoomThatACandidateWouldFill) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<int64_t> flops;
    std::vector<double> damages;
    for (int i = 0; i < 12; ++i) {
      flops.push_back(1 + static_cast<int64_t>(random() % 50));
      damages.push_back(static_cast<double>(1 + random() % 1000));
    }
    const auto linears = linears_of(flops);
    const double least = static_cast<double>(1 + random() % 100) / 100;
    const SkipChoice choice = search_skips(linears, at_least(least, 12, 1 + random() % 3), sum_of(damages));
    EXPECT_GE(share_of(linears, choice.sparse), least);
    for (std::size_t i = 0; i < linears.size(); ++i) {
      if (!choice.sparse[i]) continue;
      SparseSet more = choice.sparse;
      more[i] = false;
      EXPECT_LT(share_of(linears, more), least) << "linear " << i << " would still fit";
    }
  }
}

TEST(SkipSearch, WhatAMeasurementBesideTheOthersSaysCountsMore) {
  // Linears 0 and 1 cancel each other: alone each is the worst, together they are harmless, and leaving one of them
  // dense is the worst one could do.
  const auto damage = [](const SparseSet& s) {
    return std::pow(10.0 * s[0] - 10.0 * s[1], 2) + 4.0 * s[2] + 3.0 * s[3];
  };
  const SkipChoice choice = search_skips(linears_of({10, 10, 10, 10}), at_least(0.75), damage);
  EXPECT_EQ(choice.order, std::vector<std::size_t>{2});
  EXPECT_EQ(choice.damage, 3);
}

TEST(SkipSearch, WhereTheWorstDoNotHelpTheNextAreAsked) {
  const auto damage = [](const SparseSet& s) {
    return std::pow(10.0 * s[0] - 10.0 * s[1], 2) + 4.0 * s[2] + 3.0 * s[3];
  };
  const SkipChoice choice = search_skips(linears_of({10, 10, 10, 10}), at_least(0.75, 1), damage);
  EXPECT_EQ(choice.order, std::vector<std::size_t>{2});
}

TEST(SkipSearch, ALaterRoundSeesTheChoicesOfTheEarlier) {
  // Once 0 is dense, 1 does nothing more; 2 does.
  const auto damage = [](const SparseSet& s) { return 100.0 * s[0] + 50.0 * (s[0] && s[1]) + 5.0 * s[2] + 1.0 * s[1]; };
  const auto linears = linears_of({10, 10, 10, 10});
  EXPECT_EQ(search_skips(linears, at_least(0.5, 8, 1), damage).order, (std::vector<std::size_t>{0, 2}));
  EXPECT_EQ(search_skips(linears, at_least(0.5, 8, 2), damage).order, (std::vector<std::size_t>{0, 1}));
}

TEST(SkipSearch, StopsWhereNothingLowersTheDamage) {
  const SkipChoice choice =
      search_skips(linears_of({10, 10, 10}), at_least(0.1), [](const SparseSet& s) { return s[0] ? 2.0 : 1.0; });
  EXPECT_EQ(choice.order, std::vector<std::size_t>{0});
}

TEST(SkipSearch, WhatSavesNoTimeIsLeftDenseFirst) {
  auto linears = linears_of({10, 10, 10, 10});
  linears[1].saved = 0;
  linears[2].saved = -3;
  const SkipChoice choice = search_skips(linears, at_least(0.5), sum_of({100, 1, 2, 50}));
  EXPECT_EQ(choice.order, (std::vector<std::size_t>{2, 1}));
}

TEST(SkipSearch, LinearsThatCannotBeSparseCountAsDense) {
  auto linears = linears_of({10, 10, 10, 70});
  linears[0].can_sparse = false;
  const SkipChoice choice = search_skips(linears, at_least(0.8), sum_of({1000, 1, 2, 3}));
  EXPECT_EQ(choice.sparse, (SparseSet{false, true, false, true}));
  EXPECT_EQ(choice.order, std::vector<std::size_t>{2});
  EXPECT_EQ(choice.alone[0], 0);
  expect_error(ErrorCode::kInvalidArgument, {"0.9000", "0.95"}, [&] {
    search_skips(linears, at_least(0.95), sum_of({1, 1, 1, 1}));
  });
}

TEST(SkipSearch, TheWholeCurveHoldsTheComparisonsAndReachesAnAllDenseModel) {
  std::vector<double> damages(20);
  std::iota(damages.begin(), damages.end(), 1.0);
  auto linears = linears_of(std::vector<int64_t>(20, 5));
  for (std::size_t i = 0; i < 20; ++i) linears[i].local_error = static_cast<double>(20 - i);
  SkipSearchOptions options = at_least(0.9);
  options.whole_curve = true;
  int64_t calls = 0, last_done = -1, last_total = 0;
  const SkipChoice choice = search_skips(
      linears, options,
      [&](const SparseSet& sparse) {
        ++calls;
        return sum_of(damages)(sparse);
      },
      [&](int64_t done, int64_t total) {
        EXPECT_EQ(done, last_done + 1);
        EXPECT_GE(total, done);
        last_done = done;
        last_total = total;
      });
  EXPECT_EQ(last_done, calls);
  EXPECT_EQ(last_total, calls);
  std::map<std::string, std::vector<SkipPoint>> points;
  for (const SkipPoint& point : choice.curve) points[point.choice].push_back(point);
  EXPECT_EQ(points["greedy"].size(), 2U);
  ASSERT_EQ(points["damage-alone"].size(), 1U);
  EXPECT_EQ(points["damage-alone"][0].measured, choice.damage);
  ASSERT_EQ(points["local-error"].size(), 1U);
  EXPECT_EQ(points["local-error"][0].measured, 210 - 1 - 2);
  EXPECT_EQ(points["beyond"].size(), 8U);
  EXPECT_EQ(points["beyond"].back().sparse_flops, 0);
  EXPECT_EQ(points["beyond"].back().measured, 0);
}

TEST(SkipSearch, CallsAreBounded) {
  int64_t calls = 0;
  const auto damage = [&](const SparseSet& sparse) {
    ++calls;
    return sum_of(std::vector<double>(30, 1.0))(sparse);
  };
  const SkipChoice choice = search_skips(linears_of(std::vector<int64_t>(30, 1)), at_least(0.8, 4, 1), damage);
  EXPECT_EQ(choice.order.size(), 6U);
  EXPECT_LE(calls, 30 + 1 + 7 * 5);
}

TEST(SkipSearch, WrongOptionsAreRefused) {
  const auto linears = linears_of({1, 2});
  const auto refused = [&](std::string_view mention, const SkipSearchOptions& options) {
    expect_error(ErrorCode::kInvalidArgument, {mention}, [&] { search_skips(linears, options, sum_of({1, 1})); });
  };
  refused("0 of the FLOPs", at_least(0));
  refused("1.01 of the FLOPs", at_least(1.01));
  refused("nan of the FLOPs", at_least(std::nan("")));
  refused("0 candidates", at_least(0.5, 0));
  refused("0 chosen", at_least(0.5, 1, 0));
  expect_error(ErrorCode::kInvalidArgument, {"no FLOPs"}, [&] {
    search_skips(linears_of({0, 0}), at_least(0.5), sum_of({1, 1}));
  });
}

}  // namespace
}  // namespace rtlynx::calibration
