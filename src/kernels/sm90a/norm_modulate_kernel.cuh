#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/sm90a/compress_quarter.cuh"
#include "kernels/sm90a/layout.h"
#include "kernels/sm90a/norm_modulate_config.h"
#include "kernels/sm90a/ptx/cluster.cuh"
#include "kernels/sm90a/ptx/copy.cuh"
#include "kernels/sm90a/ptx/mbarrier.cuh"
#include "kernels/sm90a/ptx/mma.cuh"
#include "kernels/sm90a/swizzled_rows.cuh"

/// Device code of norm_modulate_prune_compress; norm_modulate_config.h says who owns what and how every number comes
/// about.
namespace rtlynx::sm90a {

/// A row vector per image; row i of X has row i / tokens_per_image.
struct PerImage {
  const uint16_t* data;  ///< null: absent
  int64_t row_stride;
};

/// Boxes of 64 k x 16 rows of X, and of 64 k x all computed columns of L_A.
struct NormModulateMaps {
  CUtensorMap x;
  CUtensorMap lora_a;
};

struct NormModulateArguments {
  const uint16_t* weight;  ///< null: absent
  PerImage modulation_scale;
  PerImage modulation_shift;
  int tokens_per_image;
  bool layer_norm;
  float eps;
  float one_over_k;
  int m;
  int k_blocks;
  int tiles;  ///< of 16 rows, up to the next multiple of 64
  int log2_stages;
  bool one_image;
  NormMemory memory;
  uint8_t* blocks;
  float* scale;
  uint16_t* dense;  ///< null: not wanted
  int64_t dense_stride;
  uint16_t* t;  ///< only written by the kernels with columns of T
  int64_t t_stride;
  int rank;
};

/// The CTA's place and shared memory. `tile` counts the tiles of its cluster from 0.
struct NormPlace {
  uint32_t base;
  int ctas;  ///< of the cluster, 4 or 8
  int log2_ctas;
  int cta;
  int first_block;  ///< of the row's, that belong to this CTA
  int blocks;

  __device__ static uint32_t stage_index(const NormModulateArguments& args, int tile) {
    return static_cast<uint32_t>(tile) & ((1u << args.log2_stages) - 1u);
  }
  __device__ static uint32_t parity(const NormModulateArguments& args, int tile) {
    return (static_cast<uint32_t>(tile) >> args.log2_stages) & 1u;
  }
  __device__ uint32_t stage(const NormModulateArguments& args, int tile) const {
    return base + args.memory.stages + stage_index(args, tile) * args.memory.stage_bytes;
  }
  __device__ uint32_t full(const NormModulateArguments& args, int tile) const {
    return base + args.memory.barriers + stage_index(args, tile) * 16;
  }
  __device__ uint32_t empty(const NormModulateArguments& args, int tile) const { return full(args, tile) + 8; }
};

/// What one row's statistics come to: normal = x inverse + offset.
struct NormStatistics {
  float inverse;
  float offset;
};

/// The barrier of one group's warps.
__device__ __forceinline__ void group_sync(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(32 * kNormGroupWarps) : "memory");
}

__device__ __forceinline__ void add_moments(const uint32_t (&words)[8], float2& sums) {
  RTLYNX_UNROLL
  for (int i = 0; i < 8; ++i) {
    const float low = low_bf16(words[i]), high = high_bf16(words[i]);
    sums.x = __fadd_rn(__fadd_rn(sums.x, low), high);
    sums.y = __fmaf_rn(high, high, __fmaf_rn(low, low, sums.y));
  }
}

/// Statistics of a row from the sums of all CTAs, 4 or 8.
__device__ __forceinline__ NormStatistics statistics_of(const float2* of_ctas, int ctas,
                                                        const NormModulateArguments& args) {
  float2 sums{};
#pragma unroll 1
  for (int first = 0; first < ctas; first += 4) {
    RTLYNX_UNROLL
    for (int cta = 0; cta < 4; ++cta) {
      const float2 part = of_ctas[(first + cta) * kNormRows];
      sums.x = __fadd_rn(sums.x, part.x);
      sums.y = __fadd_rn(sums.y, part.y);
    }
  }
  const float mean = args.layer_norm ? __fmul_rn(sums.x, args.one_over_k) : 0.0f;
  float variance = __fmaf_rn(-mean, mean, __fmul_rn(sums.y, args.one_over_k));
  if (variance < 0.0f) variance = 0.0f;  // a NaN stays
  const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, args.eps)));
  return {inverse, -__fmul_rn(mean, inverse)};
}

__device__ __forceinline__ uint4 load_eight(const uint16_t* vector) {
  return __ldg(reinterpret_cast<const uint4*>(vector));
}

/// Factors and shifts of 8 consecutive k.
struct Modulation {
  float factor[8];
  float shift[8];
};

__device__ __forceinline__ void widen(const uint4& words, float (&out)[8]) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
  RTLYNX_UNROLL
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = low_bf16(word[i]);
    out[2 * i + 1] = high_bf16(word[i]);
  }
}

__device__ __forceinline__ Modulation load_modulation(const NormModulateArguments& args, int image, int k) {
  Modulation of{};
  uint4 scale{}, shift{}, weight{};
  if (args.modulation_scale.data != nullptr) {
    scale = load_eight(args.modulation_scale.data + image * args.modulation_scale.row_stride + k);
  }
  if (args.modulation_shift.data != nullptr) {
    shift = load_eight(args.modulation_shift.data + image * args.modulation_shift.row_stride + k);
  }
  if (args.weight != nullptr) weight = load_eight(args.weight + k);
  widen(scale, of.factor);
  widen(shift, of.shift);
  RTLYNX_UNROLL
  for (float& factor : of.factor) factor = __fadd_rn(1.0f, factor);
  if (args.weight != nullptr) {
    float weights[8];
    widen(weight, weights);
    RTLYNX_UNROLL
    for (int i = 0; i < 8; ++i) of.factor[i] = __fmul_rn(of.factor[i], weights[i]);
  }
  return of;
}

/// The same from shared memory, where stage_modulation has left it.
__device__ __forceinline__ Modulation read_modulation(uint32_t shared) {
  Modulation of{};
  RTLYNX_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint4 pairs = ptx::load_shared(shared + 16 * i);
    of.factor[2 * i] = __uint_as_float(pairs.x);
    of.shift[2 * i] = __uint_as_float(pairs.y);
    of.factor[2 * i + 1] = __uint_as_float(pairs.z);
    of.shift[2 * i + 1] = __uint_as_float(pairs.w);
  }
  return of;
}

/// By all threads: factors and shifts of `blocks` blocks of k, where all rows share them.
__device__ __forceinline__ void stage_modulation(const NormModulateArguments& args, uint8_t* shared, int first_block,
                                                 int blocks) {
  for (int eight = threadIdx.x; eight < 8 * blocks; eight += kNormThreads) {
    const Modulation of = load_modulation(args, 0, first_block * kBlockK + 8 * eight);
    auto* pairs =
        reinterpret_cast<float2*>(shared + args.memory.modulation + eight / 2 * kNormModulationPitch) + eight % 2 * 8;
    RTLYNX_UNROLL
    for (int i = 0; i < 8; ++i) pairs[i] = make_float2(of.factor[i], of.shift[i]);
  }
}

/// y of 8 k in place of x: words[first] .. words[first + 3].
__device__ __forceinline__ void normalize(uint32_t (&words)[8], int first, const NormStatistics& row,
                                          const Modulation& modulation) {
  RTLYNX_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t x = words[first + i];
    const float low = __fmaf_rn(low_bf16(x), row.inverse, row.offset);
    const float high = __fmaf_rn(high_bf16(x), row.inverse, row.offset);
    const __nv_bfloat162 pair =
        __floats2bfloat162_rn(__fmaf_rn(low, modulation.factor[2 * i], modulation.shift[2 * i]),
                              __fmaf_rn(high, modulation.factor[2 * i + 1], modulation.shift[2 * i + 1]));
    words[first + i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

__device__ __forceinline__ void store_dense(const uint32_t (&words)[8], uint16_t* dense) {
  reinterpret_cast<uint4*>(dense)[0] = make_uint4(words[0], words[1], words[2], words[3]);
  reinterpret_cast<uint4*>(dense)[1] = make_uint4(words[4], words[5], words[6], words[7]);
}

/// One warp of a group: lane l has rows l / 4 and l / 4 + 8 of the tile and k = 16 (l % 4) .. + 15 of every fourth
/// block.
template <int kColumns>
struct NormWarp {
  const NormModulateArguments& args;
  const NormPlace& place;
  uint8_t* shared;
  int group;
  int warp;  ///< of the group
  int lane;
  int tile;       ///< of the cluster
  int first_row;  ///< of X

  __device__ float2* partial(int which) const {
    return reinterpret_cast<float2*>(shared + args.memory.partial) +
           ((2 * group + which) * kNormGroupWarps) * kNormRows;
  }
  __device__ uint32_t statistics_index() const { return static_cast<uint32_t>(tile) % kNormStatisticsSlots; }
  __device__ const float2* statistics_slot() const {
    return reinterpret_cast<const float2*>(shared + args.memory.statistics) +
           statistics_index() * place.ctas * kNormRows;
  }
  __device__ uint32_t statistics_barrier() const {
    return place.base + args.memory.statistics_barriers + statistics_index() * 8;
  }
  __device__ uint32_t output_barrier() const { return place.base + args.memory.output_barriers + group * 8; }
  __device__ int rows_per_cta() const { return kNormRows >> place.log2_ctas; }
  __device__ int owner_of(int row) const { return row >> (4 - place.log2_ctas); }
  /// Of this group's squares from CTA `from` for row `row` of its owner.
  __device__ uint32_t squares_offset(int from, int row) const {
    return args.memory.squares + ((group * kNormRows) + from * rows_per_cta() + row) * 8;
  }
  /// Rows of one column lie together, since mma's lanes hold two rows of a column.
  __device__ uint32_t t_offset(int from, int row, int column) const {
    return args.memory.t + (group * kNormRows * kColumns + (from * kColumns + column) * rows_per_cta() + row) * 4;
  }

  /// Leaves (a, b) of both rows, added over the quad, for the group, and adds them over its warps: thread r < 16 of the
  /// group gets row r's.
  __device__ float2 add_group(float2 low, float2 high, int which) const {
    float2* sums = partial(which);
    low = make_float2(add_quad(low.x), add_quad(low.y));
    high = make_float2(add_quad(high.x), add_quad(high.y));
    if (lane % 4 == 0) {
      sums[warp * kNormRows + lane / 4] = low;
      sums[warp * kNormRows + lane / 4 + 8] = high;
    }
    group_sync(group);
    if (warp != 0 || lane >= kNormRows) return {};
    float2 total = sums[lane];
    RTLYNX_UNROLL
    for (int w = 1; w < kNormGroupWarps; ++w) {
      const float2 part = sums[w * kNormRows + lane];
      total = make_float2(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y));
    }
    return total;
  }

  /// Sums x and x^2 of the tile's rows over the CTA's k and tells all CTAs of the cluster.
  __device__ void share_statistics() const {
    float2 low_sums{}, high_sums{};
#pragma unroll 1
    for (int i = warp; i < place.blocks; i += kNormGroupWarps) {
      uint32_t low[8], high[8];
      load_rows(place.stage(args, tile) + i * kNormBlockBytes + lane / 4 * 2 * kBlockK, low, high);
      add_moments(low, low_sums);
      add_moments(high, high_sums);
    }
    const float2 total = add_group(low_sums, high_sums, 0);
    if (warp != 0) return;
    if (lane == 0) ptx::mbarrier_arrive_expect_bytes(statistics_barrier(), place.ctas * kNormRows * 8);
    if (lane >= kNormRows) return;
    const uint32_t slot = ptx::shared_address(statistics_slot()) + (place.cta * kNormRows + lane) * 8;
#pragma unroll 4
    for (int cta = 0; cta < place.ctas; ++cta) {
      ptx::store_pair_in_cluster(ptx::address_in_cluster(slot, cta), total,
                                 ptx::address_in_cluster(statistics_barrier(), cta));
    }
  }

  /// y of the warp's blocks: dense, compressed and, for T, in x's place in shared memory.
  __device__ void write_outputs(SquareSums (&sums)[2]) const {
    const int row = first_row + lane / 4, quarter = lane % 4, row_in_block = row % kBlockRows;
    const bool inside[2] = {row < args.m, row + 8 < args.m};
    // Each row's are computed by two lanes and handed to the eight that need them.
    const NormStatistics one = statistics_of(statistics_slot() + lane % kNormRows, place.ctas, args);
    NormStatistics of[2];
    RTLYNX_UNROLL
    for (int half = 0; half < 2; ++half) {
      of[half].inverse = __shfl_sync(0xffffffffu, one.inverse, lane / 4 + 8 * half);
      of[half].offset = __shfl_sync(0xffffffffu, one.offset, lane / 4 + 8 * half);
    }
    const int images[2] = {inside[0] ? row / args.tokens_per_image : 0,
                           inside[1] ? (row + 8) / args.tokens_per_image : 0};
    uint8_t* blocks = args.blocks + block_offset(first_row / kBlockRows, 0, args.k_blocks);
#pragma unroll 1
    for (int i = warp; i < place.blocks; i += kNormGroupWarps) {
      const uint32_t x = place.stage(args, tile) + i * kNormBlockBytes + lane / 4 * 2 * kBlockK;
      const int k_block = place.first_block + i, k = k_block * kBlockK + 16 * quarter;
      uint32_t low[8], high[8];
      load_rows(x, low, high);
      RTLYNX_UNROLL
      for (int half = 0; half < 2; ++half) {
        if (args.one_image) {
          const Modulation modulation = read_modulation(place.base + args.memory.modulation +
                                                        (4 * i + quarter) * kNormModulationPitch + 64 * half);
          normalize(low, 4 * half, of[0], modulation);
          normalize(high, 4 * half, of[1], modulation);
        } else {
          normalize(low, 4 * half, of[0], load_modulation(args, images[0], k + 8 * half));
          normalize(high, 4 * half, of[1], load_modulation(args, images[1], k + 8 * half));
        }
      }
      if (first_row + kNormRows > args.m) {
        RTLYNX_UNROLL
        for (int w = 0; w < 8; ++w) {
          low[w] = inside[0] ? low[w] : 0;
          high[w] = inside[1] ? high[w] : 0;
        }
      }
      if (args.dense != nullptr) {
        if (inside[0]) store_dense(low, args.dense + row * args.dense_stride + k);
        if (inside[1]) store_dense(high, args.dense + (row + 8) * args.dense_stride + k);
      }
      if constexpr (kColumns > 0) store_rows(x, low, high);
      uint8_t* block = blocks + block_offset(0, k_block, args.k_blocks);
      const uint32_t low_bits = compress_quarter(low, block + value_offset(row_in_block, quarter), sums[0]);
      const uint32_t high_bits = compress_quarter(high, block + value_offset(row_in_block + 8, quarter), sums[1]);
      *reinterpret_cast<uint32_t*>(block + metadata_offset(row_in_block, quarter)) = low_bits | (high_bits << 16);
    }
  }

  /// A quarter of T's parts of 16 columns x 8 rows over the CTA's k, sent to the rows' owners. Fragments of both
  /// operands come by ldmatrix: lane l names row l % 8 of matrix l / 8, whose 16-byte chunk the swizzle has moved.
  __device__ void multiply() const {
    constexpr int kParts = kColumns / 32;
    float t[kParts][4] = {};
    const uint32_t in_eight = lane % 8, matrix = lane / 8;
    // Of L_A: columns 0-7 and 8-15, then the same for the next 8 k. Of y: both halves of k of rows 0-7, then of rows
    // 8-15.
    const uint32_t column_of = in_eight + matrix % 2 * 8, row_of = in_eight + matrix / 2 * 8;
    const uint32_t y = place.stage(args, tile) + row_of * 128,
                   lora_a = place.base + args.memory.lora_a + column_of * 128;
#pragma unroll 1
    for (int i = 0; i < place.blocks; ++i) {
      RTLYNX_UNROLL
      for (int step = 0; step < kBlockK / 16; ++step) {
        uint32_t rows[4], columns[4];
        ptx::load_matrices(y + i * kNormBlockBytes + ((2 * step + matrix % 2) ^ in_eight) * 16, rows);
        RTLYNX_UNROLL
        for (int part = 0; part < kParts; ++part) {
          const int which = warp * kParts + part, first_column = which / 2 * 16, half = which % 2;
          if (kParts == 1 || part % 2 == 0) {  // two parts in a row share their columns
            ptx::load_matrices(
                lora_a + i * kColumns * 128 + first_column * 128 + ((2 * step + matrix / 2) ^ in_eight) * 16, columns);
          }
          ptx::mma(t[part], columns[0], columns[1], columns[2], columns[3], half == 0 ? rows[0] : rows[2],
                   half == 0 ? rows[1] : rows[3]);
        }
      }
    }
    RTLYNX_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const int which = warp * kParts + part, column = which / 2 * 16 + lane / 4, row = which % 2 * 8 + 2 * (lane % 4);
      const int owner = owner_of(row), row_there = row & (rows_per_cta() - 1);
      const uint32_t barrier = ptx::address_in_cluster(output_barrier(), owner);
      RTLYNX_UNROLL
      for (int half = 0; half < 2; ++half) {
        ptx::store_pair_in_cluster(
            ptx::address_in_cluster(place.base + t_offset(place.cta, row_there, column + 8 * half), owner),
            make_float2(t[part][2 * half], t[part][2 * half + 1]), barrier);
      }
    }
  }

  /// The rows that this CTA owns: their scale and T from all CTAs' sums.
  __device__ void finish_rows() const {
    const int rows = rows_per_cta(), first = first_row + place.cta * rows;
    const int thread = 32 * warp + lane;
    if (thread < rows && first + thread < args.m) {
      float2 total = *reinterpret_cast<const float2*>(shared + squares_offset(0, thread));
      for (int from = 1; from < place.ctas; ++from) {
        const float2 part = *reinterpret_cast<const float2*>(shared + squares_offset(from, thread));
        total = make_float2(__fadd_rn(total.x, part.x), __fadd_rn(total.y, part.y));
      }
      args.scale[first + thread] = scale_of(total.x, total.y);
    }
    if constexpr (kColumns > 0) {
      for (int item = thread; item < rows * (kColumns / 2); item += 32 * kNormGroupWarps) {
        const int row = item / (kColumns / 2), column = item % (kColumns / 2) * 2;
        if (first + row >= args.m || column >= args.rank) continue;
        float2 total{};
        for (int from = 0; from < place.ctas; ++from) {
          total.x += *reinterpret_cast<const float*>(shared + t_offset(from, row, column));
          total.y += *reinterpret_cast<const float*>(shared + t_offset(from, row, column + 1));
        }
        const __nv_bfloat162 pair = __floats2bfloat162_rn(total.x, total.y);
        *reinterpret_cast<uint32_t*>(args.t + (first + row) * args.t_stride + column) =
            *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
  }

  __device__ void run() const {
    ptx::mbarrier_wait(place.full(args, tile), place.parity(args, tile));
    share_statistics();
    ptx::mbarrier_wait(statistics_barrier(), (static_cast<uint32_t>(tile) / kNormStatisticsSlots) & 1u);
    if (warp == 0 && lane == 0) {
      ptx::mbarrier_arrive_expect_bytes(output_barrier(), kNormRows * (8 + kColumns * 4));
    }
    SquareSums sums[2];
    write_outputs(sums);
    // The group's barrier in here also ends the writing of y.
    const float2 total = add_group(make_float2(sums[0].all, sums[0].kept), make_float2(sums[1].all, sums[1].kept), 1);
    if (warp == 0 && lane < kNormRows) {
      const int owner = owner_of(lane), row_there = lane & (rows_per_cta() - 1);
      ptx::store_pair_in_cluster(ptx::address_in_cluster(place.base + squares_offset(place.cta, row_there), owner),
                                 total, ptx::address_in_cluster(output_barrier(), owner));
    }
    if constexpr (kColumns > 0) {
      if (tile == group) ptx::mbarrier_wait(place.base + args.memory.lora_barrier, 0);
      multiply();
      ptx::fence_shared_for_copies();
    }
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(place.empty(args, tile));
    ptx::mbarrier_wait(output_barrier(), (static_cast<uint32_t>(tile) / kNormGroups) & 1u);
    finish_rows();
  }
};

/// By one thread: L_A once, and all tiles of the cluster, each as soon as a stage is free.
template <int kColumns>
__device__ __forceinline__ void bring_tiles(const NormPlace& place, const NormModulateMaps& maps,
                                            const NormModulateArguments& args, int cluster, int clusters) {
#pragma unroll 1
  for (int tile = 0; cluster + tile * clusters < args.tiles; ++tile) {
    ptx::mbarrier_wait(place.empty(args, tile), place.parity(args, tile) ^ 1u);
    ptx::mbarrier_arrive_expect_bytes(place.full(args, tile), place.blocks * kNormBlockBytes);
#pragma unroll 1
    for (int i = 0; i < place.blocks; ++i) {
      ptx::tensor_load(place.stage(args, tile) + i * kNormBlockBytes, &maps.x, (place.first_block + i) * kBlockK,
                       (cluster + tile * clusters) * kNormRows, place.full(args, tile));
    }
    if (kColumns == 0 || tile > 0) continue;
    const uint32_t barrier = place.base + args.memory.lora_barrier;
    constexpr int kBytes = kColumns * kBlockK * 2;
    ptx::mbarrier_arrive_expect_bytes(barrier, place.blocks * kBytes);
#pragma unroll 1
    for (int i = 0; i < place.blocks; ++i) {
      ptx::tensor_load(place.base + args.memory.lora_a + i * kBytes, &maps.lora_a, (place.first_block + i) * kBlockK, 0,
                       barrier);
    }
  }
}

template <int kColumns>
__global__ void __launch_bounds__(kNormThreads, 1)
    norm_modulate_kernel(const __grid_constant__ NormModulateMaps maps,
                         const __grid_constant__ NormModulateArguments args) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int warp = threadIdx.x / 32, ctas = static_cast<int>(ptx::cluster_size());
  const int cta = static_cast<int>(ptx::cluster_rank());
  const int cluster = static_cast<int>(blockIdx.x) / ctas, clusters = static_cast<int>(gridDim.x) / ctas;
  const int first_block = norm_first_block(args.k_blocks, ctas, cta);
  const NormPlace place{ptx::shared_address(shared),
                        ctas,
                        ctas == 4 ? 2 : 3,
                        cta,
                        first_block,
                        norm_first_block(args.k_blocks, ctas, cta + 1) - first_block};
  if (threadIdx.x == 0) {
    for (int i = 0; i < 1 << args.log2_stages; ++i) {
      ptx::mbarrier_init(place.full(args, i), 1);
      ptx::mbarrier_init(place.empty(args, i), kNormGroupWarps);
    }
    for (int i = 0; i < kNormStatisticsSlots; ++i) {
      ptx::mbarrier_init(place.base + args.memory.statistics_barriers + 8 * i, 1);
    }
    for (int i = 0; i < kNormGroups; ++i) ptx::mbarrier_init(place.base + args.memory.output_barriers + 8 * i, 1);
    ptx::mbarrier_init(place.base + args.memory.lora_barrier, 1);
    ptx::mbarrier_init_fence();
  }
  if (args.one_image) stage_modulation(args, shared, first_block, place.blocks);
  // Nobody may send to a CTA whose barriers are not ready.
  ptx::cluster_sync();

  if (warp == kNormGroups * kNormGroupWarps) {
    if (threadIdx.x % 32 == 0) bring_tiles<kColumns>(place, maps, args, cluster, clusters);
    __syncwarp();
  } else {
    const int group = warp / kNormGroupWarps;
    for (int tile = group; cluster + tile * clusters < args.tiles; tile += kNormGroups) {
      NormWarp<kColumns>{args,
                         place,
                         shared,
                         group,
                         warp % kNormGroupWarps,
                         static_cast<int>(threadIdx.x % 32),
                         tile,
                         (cluster + tile * clusters) * kNormRows}
          .run();
    }
  }
  // Nobody sends to a CTA that has finished its rows of every tile: it may end.
}

}  // namespace rtlynx::sm90a
