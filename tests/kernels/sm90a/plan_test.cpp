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

TEST(SpmmTiles, FitTheMachineWithEveryEpilogue) {
  for (const SpmmTile& plain : kSpmmTiles) {
    for (int i = 0; i < kEpilogueCount; ++i) {
      const auto epilogue = static_cast<Epilogue>(i);
      const SpmmTile tile = with_epilogue(plain, epilogue);
      EXPECT_LE(tile.shared_bytes(), kSharedBytesLimit);
      EXPECT_GE(tile.stages, 4);
      const int at_launch = 65536 / tile.threads() / 8 * 8;
      EXPECT_LE(128 * (tile.consumers * tile.consumer_registers + tile.producer_registers), at_launch * tile.threads());
      EXPECT_GE(tile.consumer_registers, at_launch) << "setmaxnreg.inc";
      EXPECT_LE(tile.producer_registers, at_launch) << "setmaxnreg.dec";
      EXPECT_EQ(tile.consumer_registers % 8, 0);
      EXPECT_GE(tile.consumer_registers, tile.columns / 2 + 24);
      EXPECT_EQ(tile.staging_bytes_per_warp() % 1024, 0);
      EXPECT_EQ(tile.staging_offset() % 1024, 0);
      const bool plain_staging = epilogue == Epilogue::kDense || epilogue == Epilogue::kGelu;
      EXPECT_EQ(tile.staged_columns, plain_staging ? kStoreColumns : tile.columns);
    }
  }
}

TEST(Staging, IsReadBackAsItWasWritten) {
  // stmatrix: matrix i takes word i of lane 4 r + q as row r's columns 2 q, 2 q + 1; lane l gives the address of row
  // l % 8 of matrix l / 8. Words 2 i + h hold the i-th eight columns of the rows 8 h ...; see spmm_epilogue.cuh.
  std::vector<int> memory(kStagedChunkBytes / 4, -1);
  for (int j = 0; j < 8; j += 2) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int lane = 0; lane < 32; ++lane) {
        const int address_lane = 8 * matrix + lane / 4;
        const int address = staged_offset(address_lane % 16, j + address_lane / 16) + 4 * (lane % 4);
        const int row = lane / 4 + 8 * (matrix % 2), column = 8 * (j + matrix / 2) + 2 * (lane % 4);
        EXPECT_EQ(memory[static_cast<std::size_t>(address / 4)], -1);
        memory[static_cast<std::size_t>(address / 4)] = 64 * row + column;
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      for (int word = 0; word < 8; ++word) {
        const int address = staged_offset(row, 2 * (lane % 4) + word / 4) + 4 * (word % 4);
        EXPECT_EQ(memory[static_cast<std::size_t>(address / 4)], 64 * row + 16 * (lane % 4) + 2 * word);
      }
    }
  }
}

TEST(SquareParts, EachIsWrittenOnceByEveryTileSize) {
  for (int n = 64; n <= 2048; n += 64) {
    for (const SpmmTile& tile : kSpmmTiles) {
      int next = 0;
      for (int t = 0; t * tile.columns < n; ++t) {
        const PartRange parts = parts_of_tile(t, tile.columns, n);
        EXPECT_EQ(parts.begin, next) << n << " " << tile.columns;
        EXPECT_LT(parts.begin, parts.end) << n << " " << tile.columns;
        next = parts.end;
      }
      EXPECT_EQ(next, square_parts(n));
    }
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

TEST(SpmmChecks, GateAndResidual) {
  const auto check = [](auto change) {
    SpmmArguments args;
    args.options.gate = {fake(8), 2, 264, 264, DType::kBF16};
    args.options.residual = {fake(9), 100, 264, 264, DType::kBF16};
    change(args);
    return args.check().code();
  };
  using A = SpmmArguments;
  EXPECT_EQ(check([](A&) {}), ErrorCode::kOk);
  EXPECT_EQ(check([](A& a) { a.options.residual = {a.d.data, 100, 264, 272, DType::kBF16}; }), ErrorCode::kOk);
  EXPECT_EQ(check([](A& a) { a.options.residual.data = a.d.data; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.residual = {}; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.gate = {}; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.gate.rows = 3; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.gate.rows = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.gate.cols = 256; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.residual.rows = 99; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a) { a.options.activation = Activation::kGeluTanh; }), ErrorCode::kUnsupported);
  EXPECT_EQ(check([](A& a) { a.d.data = fake(8); }), ErrorCode::kInvalidArgument);
}

TEST(SpmmChecks, CompressedOutput) {
  const auto check = [](auto change) {
    SpmmArguments args;
    args.w.rows = 256;
    args.options.bias.cols = 256;
    args.options.lora_up.rows = 256;
    CompressedSlice out{{fake(8), nullptr, 100, 512}, static_cast<float*>(fake(9)), 128};
    change(args, out);
    return check_spmm_compress(args.a, args.w, out, args.options).code();
  };
  using A = SpmmArguments;
  using S = CompressedSlice;
  EXPECT_EQ(check([](A&, S&) {}), ErrorCode::kOk);
  EXPECT_EQ(check([](A&, S& s) { s.k_offset = 256; }), ErrorCode::kOk);
  EXPECT_EQ(check([](A&, S& s) { s.k_offset = 384; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.k_offset = -128; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.k_offset = 64; }), ErrorCode::kUnsupported);
  EXPECT_EQ(check([](A&, S& s) { s.matrix.m = 99; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.matrix.blocks = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.squares = nullptr; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.squares = static_cast<float*>(s.matrix.blocks); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.matrix.blocks = fake(1); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A&, S& s) { s.squares = static_cast<float*>(fake(3)); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](A& a, S&) { a.options.bias.cols = a.options.lora_up.rows = a.w.rows = 264; }),
            ErrorCode::kUnsupported);
  EXPECT_EQ(check([](A& a, S&) {
              a.options.gate = a.options.residual = {fake(6), 100, 256, 256, DType::kBF16};
            }),
            ErrorCode::kUnsupported);
}

TEST(PruneCompressSliceChecks, RefuseWhatDoesNotFit) {
  const auto check = [](auto change) {
    MatrixView x{fake(1), 100, 192, 200, DType::kBF16};
    CompressedSlice out{{fake(2), nullptr, 100, 320}, static_cast<float*>(fake(3)), 128};
    change(x, out);
    return plan_prune_compress_slice(x, out).status().code();
  };
  using X = MatrixView;
  using S = CompressedSlice;
  EXPECT_EQ(check([](X&, S&) {}), ErrorCode::kOk);
  EXPECT_EQ(check([](X& x, S&) { x.rows = 99; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](X& x, S&) { x.cols = 96; }), ErrorCode::kUnsupported);
  EXPECT_EQ(check([](X& x, S&) { x.cols = 0; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](X& x, S&) { x.dtype = DType::kF32; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](X&, S& s) { s.k_offset = 256; }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](X&, S& s) { s.matrix.blocks = fake(1); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check([](X&, S& s) { s.squares = static_cast<float*>(fake(1)); }), ErrorCode::kInvalidArgument);
}

TEST(FinishScaleChecks, RefuseWhatIsNotDocumented) {
  const auto squares = static_cast<const float*>(fake(3));
  MutableCompressedView matrix{nullptr, static_cast<float*>(fake(2)), 100, 320};
  EXPECT_TRUE(check_finish_scale(matrix, squares).ok());
  EXPECT_EQ(check_finish_scale(matrix, nullptr).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(check_finish_scale(matrix, matrix.scale).code(), ErrorCode::kInvalidArgument);
  matrix.scale = nullptr;
  EXPECT_EQ(check_finish_scale(matrix, squares).code(), ErrorCode::kInvalidArgument);
  matrix = {nullptr, static_cast<float*>(fake(2)), 0, 320};
  EXPECT_EQ(check_finish_scale(matrix, squares).code(), ErrorCode::kInvalidArgument);
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
