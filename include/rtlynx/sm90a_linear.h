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

/// Bytes of the workspace that linear() needs for x [m, k]: the compressed activations, their scale, and T for a
/// `rank` of L_A that linear() is given. Errors: those of compressed_bytes(); kUnsupported for a rank that is neither 0
/// nor a multiple of 8 in 8..128.
Result<int64_t> linear_workspace_bytes(int64_t m, int64_t k, int64_t rank = 0);

/// y [m, n] = s * (X~ W^T) + T L_B + bias: prune_compress of x [m, k] into the workspace, then spmm, on one stream.
/// `options` are spmm's, activation and gate included; y must not overlap x.
/// T = X L_A is made in the first of these two passes where `lora_a` is given (L_A transposed, [r, k] kBF16, of as many
/// factors as options.lora_up) and options.lora_down is empty; without it T is options.lora_down.
/// `workspace`: linear_workspace_bytes(m, k, rows of lora_a) bytes, 16-byte aligned, apart from every operand; its
/// contents are lost. It may be used again by later work on the same stream. Errors: those of prune_compress,
/// prune_compress_lora and spmm; kInvalidArgument for T twice, and for a workspace that is null, unaligned, too small
/// or not apart. All arguments are checked before anything is queued.
Status linear(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y, const SpmmOptions& options,
              void* workspace, int64_t workspace_bytes, Stream stream, const MatrixView& lora_a = {});

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
