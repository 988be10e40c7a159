#pragma once

#include <cstdint>
#include <string>

#include "rtlynx/linear.h"
#include "rtlynx/sm90a.h"

/// The whole RT-Lynx linear on a Hopper GPU: dense X in, dense Y out, and the plan that says where it pays. See sm90a.h
/// for what all operations have in common.
namespace rtlynx::sm90a {

/// Ok where the kernels can run a bf16 linear with w [n, k] and a low-rank branch of `rank` factors (0: none) for any
/// m: k % 64 == 0, n % 8 == 0, rank % 8 == 0 and at most 128. Otherwise kUnsupported or kInvalidArgument with the
/// reason. Pure.
Status check_linear_sizes(int64_t n, int64_t k, int64_t rank);

/// Bytes of the workspace that linear() needs for x [m, k]: the compressed activations and their scale.
/// Errors: those of compressed_bytes().
Result<int64_t> linear_workspace_bytes(int64_t m, int64_t k);

/// y [m, n] = s * (X~ W^T) + T L_B + bias: prune_compress of x [m, k] into the workspace, then spmm, on one stream.
/// `options` are spmm's, activation and gate included; y must not overlap x. `lora_down`, T = X L_A, comes from the
/// caller, who has a dense product at hand (the torch operators use cuBLAS); this library has none. `workspace`:
/// linear_workspace_bytes(m, k) bytes, 16-byte aligned, apart from every operand; its contents are lost. It may be used
/// again by later work on the same stream. Errors: those of prune_compress and spmm; kInvalidArgument for a workspace
/// that is null, unaligned, too small or not apart. All arguments are checked before anything is queued.
Status linear(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y, const SpmmOptions& options,
              void* workspace, int64_t workspace_bytes, Stream stream);

/// The device as the plan sees it.
struct DeviceTraits {
  int multiprocessors = 132;  ///< an H100 SXM or H200
};

/// Those of the current device. Errors: check_device()'s.
Result<DeviceTraits> device_traits();

/// Whether a linear should run sparse on a Hopper GPU, and why. Plain data.
struct LinearPlan {
  Execution execution = Execution::kDense;
  std::string reason;  ///< one sentence
  int64_t m = 0, n = 0, k = 0, rank = 0;
  int tile = -1;             ///< what spmm's own plan takes; -1 where the kernels cannot run
  double sparse_cycles = 0;  ///< expected: pruning, X L_A, product
  double dense_cycles = 0;   ///< expected of cuBLAS; both 0 where the kernels cannot run

  /// "sparse m=4096 n=4096 k=3072 r=64 tile 128x256, 182 k cycles, dense 212 k: <reason>"
  std::string to_string() const;
};

/// Chooses for a bf16 linear of x [m, k] and w [n, k] with a low-rank branch of `rank` factors (0: none). A pure
/// function of its arguments, by the figures of linear_config.h. Dense means: call cuBLAS.
LinearPlan plan_linear(int64_t m, int64_t n, int64_t k, int64_t rank, const DeviceTraits& device = {});

}  // namespace rtlynx::sm90a
