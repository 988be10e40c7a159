#pragma once

#include <cstddef>
#include <cstdint>

#include "rtlynx/status.h"
#include "rtlynx/tensor_view.h"

/// CUDA's stream (cudaStream_t is a pointer to it), so that this header needs none of CUDA's.
struct CUstream_st;

/// The Hopper back end (sm_90a: H100, H200, GH200). Built with RTLYNX_CUDA=ON.
///
/// All views and pointers are device memory of the current device, all work is queued on `stream` (nullptr: the default
/// stream), and nothing is allocated or waited for: memory must stay alive until the stream has passed the call.
/// Arguments are checked before anything is queued. Every operation returns
///   kInvalidArgument  a shape, stride, dtype, pointer or alignment; the message says wanted and got
///   kUnsupported      a valid request that these kernels cannot serve (k % 64, n % 8, another GPU), with the reason
///   kInternal         an error of CUDA's, with its name
/// Results are the same bits on every run; only the choice of tile (SpmmOptions::tile) can change spmm's last bit.
namespace rtlynx::sm90a {

using Stream = CUstream_st*;

/// Ok on a device of compute capability 9.0 whose driver can encode tensor maps; kUnsupported names what was found.
Status check_device();

/// Activations [m, k] in bf16 after prune and compress, in this back end's own layout. A view: owns nothing.
///   blocks  compressed_bytes(m, k) bytes, 16-byte aligned: for every 64 rows, for every 64 k, one block of 4608 bytes,
///           4096 of kept values as wgmma reads them and 512 of metadata in the order of its lanes (layout.h). Rows
///           beyond m, up to the next multiple of 64, hold zeros.
///   scale   [m] fp32, the norm compensation s of each token
struct CompressedView {
  const void* blocks = nullptr;
  const float* scale = nullptr;
  int64_t m = 0;
  int64_t k = 0;
};
struct MutableCompressedView {
  void* blocks = nullptr;
  float* scale = nullptr;
  int64_t m = 0;
  int64_t k = 0;
};
inline CompressedView read_only(const MutableCompressedView& view) {
  return {view.blocks, view.scale, view.m, view.k};
}

/// Bytes of `blocks`: 72 per row and 64 k, rows rounded up to 64. 0.5625 of the dense bf16 matrix.
/// kInvalidArgument for m or k < 1, kUnsupported unless k % 64 == 0, kOverflow.
Result<int64_t> compressed_bytes(int64_t m, int64_t k);

/// Prunes x [m, k] (kBF16, data and rows 16-byte aligned) to 2:4 and packs it, in one pass: every element is read once.
/// Selection is the rule of sparse24.h, bit for bit: the two largest |x| of four, ties to the lower index, -0 equal
/// to +0, all NaN equal and above every number; kept values are copied unchanged.
/// scale: s = sqrt(sum x^2 / (sum x~^2 + 1e-8)) in fp32 with fused multiply-adds, IEEE division and square root. The
/// sums run in an order that fills a GPU and differs from sparse24.h's (prune_compress_config.h states it); each is
/// within (16 ceil(k / 512) + 12) * 2^-24 of the exact sum, relatively, and exact where all partial sums are integers
/// below 2^24. m == 0 is refused. Errors: see above; kUnsupported unless k % 64 == 0.
Status prune_compress(const MatrixView& x, const MutableCompressedView& out, Stream stream);

/// out [m, k] (kBF16, host memory) = the dense matrix that the blocks stand for, dropped elements as +0. `blocks` is a
/// host copy of compressed_bytes(m, k) bytes; it is not trusted: kInvalidArgument when two indices of a group do not
/// rise. For tests and debugging.
Status decompress_on_host(const void* blocks, const MutableMatrixView& out);

/// What spmm adds to the product; all optional.
struct SpmmOptions {
  bool use_scale = true;   ///< false: s = 1
  MatrixView bias{};       ///< [1, n] kBF16, 16-byte aligned
  MatrixView lora_down{};  ///< T = X L_A, [m, r] kBF16, r a multiple of 8 in 8..128; rows 16-byte aligned
  MatrixView lora_up{};    ///< L_B transposed, [n, r] kBF16: row j holds what token factors add to column j, as in W
  int tile = -1;           ///< index into kSpmmTiles (spmm_config.h) for tests and benchmarks; -1: the plan chooses
};

/// d [m, n] (kBF16) = s * (A W^T) + T L_B + bias with A the compressed activations and w [n, k] (kBF16) as it lies in
/// the checkpoint. Data and rows of w, d 16-byte aligned; n % 8 == 0 and k % 64 == 0, any m >= 1.
/// fp32 sums on the tensor cores; then s * sum, the low-rank product on top in the same accumulators, + bias, each
/// rounded to fp32, and one rounding to bf16. d must not overlap anything that is read.
Status spmm(const CompressedView& a, const MatrixView& w, const MutableMatrixView& d, const SpmmOptions& options,
            Stream stream);

}  // namespace rtlynx::sm90a
