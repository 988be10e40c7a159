// Host arithmetic of the Hopper kernels: tiles, plans and argument checks. Needs neither nvcc nor a GPU.
#include <gtest/gtest.h>

#include <set>

#include "kernels/shapes.h"
#include "kernels/sm90a/prune_compress_config.h"
#include "kernels/sm90a/spmm_config.h"

namespace rtlynx::sm90a {
namespace {

constexpr int kH100Clusters[kSpmmTileCount] = {66, 66, 66};

/// An address that passes every alignment check and is never read.
void* fake(uint64_t index) {
  return reinterpret_cast<void*>(index << 32);
}

std::string tile_of(int64_t m, int64_t n, int64_t k) {
  const std::string text = plan_spmm(m, n, k, 0, kH100Clusters).value().to_string();
  return text.substr(0, text.find(' '));
}

TEST(SpmmTiles, FitTheMachine) {
  for (const SpmmTile& tile : kSpmmTiles) {
    EXPECT_LE(tile.shared_bytes(), kSharedBytesLimit);
    EXPECT_GE(tile.stages, 3);
    EXPECT_LE(tile.threads(), 1024);
    // At launch every thread gets the same multiple of 8; setmaxnreg then moves registers among the warpgroups.
    const int at_launch = 65536 / tile.threads() / 8 * 8;
    EXPECT_LE(128 * (tile.consumers * tile.consumer_registers + tile.producer_registers), at_launch * tile.threads());
    EXPECT_EQ(tile.consumer_registers % 8, 0);
    EXPECT_EQ(tile.producer_registers % 8, 0);
    EXPECT_GE(tile.consumer_registers, tile.columns / 2 + 24);
    EXPECT_LE(tile.columns, 256);
    EXPECT_EQ(tile.columns % kStoreColumns, 0);
    EXPECT_LE(tile.columns / kClusterSize, 256) << "a tensor map's box";
    EXPECT_LE(tile.rows(), 256) << "a tensor map's box";
    // Swizzle atoms: 1024 bytes for W and the staged output, 512 for values, T and each CTA's half of L_B.
    EXPECT_EQ(tile.weight_bytes() / kClusterSize % 1024, 0);
    EXPECT_EQ(tile.weight_bytes() / 2 / kClusterSize % 512, 0);
    EXPECT_EQ(tile.values_offset() % 1024, 0);
    EXPECT_EQ(tile.staging_offset() % 1024, 0);
    EXPECT_EQ(tile.staging_bytes_per_warp() % 1024, 0);
    EXPECT_EQ(tile.barriers_offset() % 16, 0);
  }
}

TEST(TileOrder, VisitsEveryTileOnce) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {1, 9}, {7, 3}, {8, 5}, {9, 4}, {16, 16}, {17, 13}, {40, 2}}) {
    TileOrder order;
    order.row_tiles = rows;
    order.column_tiles = columns;
    std::set<std::pair<int, int>> seen;
    for (int i = 0; i < order.count(); ++i) {
      const TileOrder::Position position = order.at(i);
      EXPECT_TRUE(position.row_tile >= 0 && position.row_tile < rows);
      EXPECT_TRUE(position.column_tile >= 0 && position.column_tile < columns);
      seen.insert({position.row_tile, position.column_tile});
    }
    EXPECT_EQ(seen.size(), static_cast<std::size_t>(rows * columns));
  }
}

TEST(SpmmPlan, PicksTheTileThatWasMeasuredFaster) {
  EXPECT_EQ(tile_of(4608, 3072, 15360), "192x192");  // 1.60x against 1.40x: 3 waves instead of 4
  for (const auto& [m, n, k] : {std::tuple{4096, 4096, 3072},
                                {8192, 8192, 3072},
                                {4096, 4096, 12288},
                                {4096, 12288, 3072},
                                {4096, 3072, 12288},
                                {4608, 21504, 3072}}) {
    EXPECT_EQ(tile_of(m, n, k), "128x256") << m << " " << n << " " << k;
  }
}

TEST(SpmmPlan, IsLegalForEveryListedShape) {
  for (const char* name : {"edge", "flux", "hopper", "mini_flux"}) {
    const auto shapes = read_shapes(std::string(RTLYNX_SOURCE_DIR "/shapes/") + name + ".txt");
    ASSERT_TRUE(shapes.ok()) << shapes.status().to_string();
    for (const LinearShape& shape : shapes.value()) {
      if (shape.m < 1 || shape.n < 1 || shape.k < 1 || shape.n % 8 != 0 || shape.k % 64 != 0) continue;
      for (int tile = -1; tile < kSpmmTileCount; ++tile) {
        const Result<SpmmPlan> result = plan_spmm(shape.m, shape.n, shape.k, 64, kH100Clusters, tile);
        ASSERT_TRUE(result.ok()) << result.status().to_string();
        const SpmmPlan& plan = result.value();
        const SpmmTile& chosen = kSpmmTiles[plan.tile];
        EXPECT_TRUE(tile == -1 || plan.tile == tile);
        EXPECT_GE(int64_t{plan.order.row_tiles} * kClusterSize * chosen.rows(), shape.m);
        EXPECT_LT(int64_t{plan.order.row_tiles - 1} * kClusterSize * chosen.rows(), shape.m);
        EXPECT_GE(int64_t{plan.order.column_tiles} * chosen.columns, shape.n);
        EXPECT_LT(int64_t{plan.order.column_tiles - 1} * chosen.columns, shape.n);
        EXPECT_TRUE(plan.clusters >= 1 && plan.clusters <= 66 && plan.clusters <= plan.order.count());
        EXPECT_GE(plan.waves * plan.clusters, plan.order.count());
      }
    }
  }
}

TEST(SpmmPlan, PrintsItself) {
  EXPECT_EQ(plan_spmm(4096, 4096, 3072, 64, kH100Clusters).value().to_string(),
            "128x256 m=4096 n=4096 k=3072 r=64: 256 cluster tiles on 66 clusters, 4 waves, 135 k cycles");
}

TEST(SpmmPlan, Refuses) {
  EXPECT_EQ(plan_spmm(64, 64, 64, 0, kH100Clusters, 3).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(plan_spmm(64, 64, 64, 0, kH100Clusters, -2).status().code(), ErrorCode::kInvalidArgument);
  const int none[kSpmmTileCount] = {};
  EXPECT_EQ(plan_spmm(64, 64, 64, 0, none).status().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(plan_spmm(1 << 30, 1 << 30, 64, 0, kH100Clusters).status().code(), ErrorCode::kUnsupported);
}

TEST(CompressedBytes, ChecksItsArguments) {
  EXPECT_EQ(compressed_bytes(1, 64).value(), 4608);
  EXPECT_EQ(compressed_bytes(65, 3072).value(), 2 * 48 * 4608);
  EXPECT_EQ(compressed_bytes(0, 64).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(compressed_bytes(64, int64_t{1} << 40).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(compressed_bytes(64, 96).status().code(), ErrorCode::kUnsupported);
}

struct PruneArguments {
  MatrixView x{fake(1), 100, 128, 136, DType::kBF16};
  MutableCompressedView out{fake(2), static_cast<float*>(fake(3)), 100, 128};
};

TEST(PruneCompressChecks, AcceptWhatIsDocumented) {
  const PruneArguments args;
  const Result<PruneCompressPlan> plan = plan_prune_compress(args.x, args.out);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_EQ(plan.value().k_blocks, 2);
  EXPECT_EQ(plan.value().row_blocks, 2);
  EXPECT_EQ(plan.value().ctas, 8);
}

TEST(PruneCompressChecks, RefuseTheRest) {
  const auto code = [](auto change) {
    PruneArguments args;
    change(args);
    return plan_prune_compress(args.x, args.out).status().code();
  };
  using A = PruneArguments;
  EXPECT_EQ(code([](A& a) { a.x.data = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.x.rows = 99; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.x.dtype = DType::kF32; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.x.row_stride = 127; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.x.row_stride = 132; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.x.data = static_cast<char*>(fake(1)) + 8; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.blocks = static_cast<char*>(fake(2)) + 8; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.scale = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.blocks = fake(1); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.m = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.out.k = a.x.cols = 96; }), ErrorCode::kUnsupported);
}

struct SpmmArguments {
  CompressedView a{fake(1), static_cast<const float*>(fake(2)), 100, 128};
  MatrixView w{fake(3), 264, 128, 128, DType::kBF16};
  MutableMatrixView d{fake(4), 100, 264, 272, DType::kBF16};
  SpmmOptions options{.bias = {fake(5), 1, 264, 264, DType::kBF16},
                      .lora_down = {fake(6), 100, 64, 64, DType::kBF16},
                      .lora_up = {fake(7), 264, 64, 64, DType::kBF16}};
  Status check() const { return check_spmm(a, w, d, options); }
};

TEST(SpmmChecks, AcceptWhatIsDocumented) {
  SpmmArguments args;
  EXPECT_TRUE(args.check().ok()) << args.check().to_string();
  args.options = {.use_scale = false};
  args.a.scale = nullptr;
  EXPECT_TRUE(args.check().ok()) << args.check().to_string();
}

TEST(SpmmChecks, RefuseTheRest) {
  const auto code = [](auto change) {
    SpmmArguments args;
    change(args);
    return args.check().code();
  };
  using A = SpmmArguments;
  EXPECT_EQ(code([](A& a) { a.a.blocks = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.a.scale = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.a.k = 96; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.w.rows = 260; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.w.cols = 64; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.w.row_stride = 132; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.d.rows = 101; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.d.dtype = DType::kF16; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.bias.cols = 256; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.lora_up = {}; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.lora_down.cols = a.options.lora_up.cols = 60; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.options.lora_down.cols = a.options.lora_up.cols = 136; }), ErrorCode::kUnsupported);
  EXPECT_EQ(code([](A& a) { a.options.lora_up.rows = 256; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code([](A& a) { a.options.lora_down.rows = 99; }), ErrorCode::kInvalidArgument);
  for (const uint64_t operand : {1, 2, 3, 5, 6, 7}) {
    EXPECT_EQ(code([&](A& a) { a.d.data = fake(operand); }), ErrorCode::kInvalidArgument) << operand;
  }
}

TEST(SpmmChecks, SayWhatWasWantedAndGot) {
  SpmmArguments args;
  args.w.cols = 64;
  EXPECT_EQ(args.check().message(), "spmm: w must be 264 x 128 (got 264 x 64)");
  args = {};
  args.w.rows = 260;
  EXPECT_EQ(args.check().message(), "spmm: n must be a multiple of 8 for the Hopper kernels (got 260)");
}

}  // namespace
}  // namespace rtlynx::sm90a
