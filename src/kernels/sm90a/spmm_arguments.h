#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/sm90a/spmm_config.h"
#include "kernels/sm90a/spmm_phases.h"

/// What the kernels of spmm are launched with.
namespace rtlynx::sm90a {

/// Tensor maps: boxes of 128 bytes of k x half a tile of W; 32 factors x tile rows of T; 32 factors x half a tile of
/// L_B; 64 columns x 16 rows of D and of the residual.
struct SpmmMaps {
  CUtensorMap weight;
  CUtensorMap lora_down;
  CUtensorMap lora_up;
  CUtensorMap output;
  CUtensorMap residual;
};

struct SpmmArguments {
  const uint8_t* blocks;
  const float* scale;          ///< null: 1
  const float* column_factor;  ///< of FP8
  const uint16_t* bias;
  TileOrder order;
  int m;
  int n;
  int k_blocks;
  int row_blocks;
  int lora_steps;
  // Of Epilogue::kGatedResidual: row i of D belongs to image i / tokens_per_image.
  int tokens_per_image;
  const uint16_t* gate;
  int64_t gate_stride;
  // Of compressed output.
  uint8_t* out_blocks;   ///< the block of row 0 and D's column 0
  int64_t out_k_blocks;  ///< of the whole output matrix
  float2* squares;       ///< [parts of D, m]
  SpmmPhaseLog* phases;  ///< null unless RTLYNX_SM90A_PHASES
};

using SpmmKernel = void (*)(SpmmMaps, SpmmArguments);

/// The kernel with this epilogue for tile `tile`; each epilogue is instantiated in a file of its own.
template <Epilogue kEpilogue, Format kFormat = Format::kBf16>
SpmmKernel spmm_kernel_of(int tile);
template <>
SpmmKernel spmm_kernel_of<Epilogue::kGatedResidual, Format::kFp8>(int tile);

}  // namespace rtlynx::sm90a
