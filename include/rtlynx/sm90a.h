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

/// What a producer of compressed activations needs to make T = X L_A as well.
struct LoraDown {
  MatrixView lora_a{};    ///< L_A transposed, [rank, k] kBF16: a row per factor, as W has one per output. The rank is a
                          ///< multiple of 8 in 8..128
  MutableMatrixView t{};  ///< [m, rank] kBF16: spmm's lora_down
};

/// prune_compress, bit for bit, and t = X L_A of the dense x, in the same pass: fp32 sums on the tensor cores, rounded
/// to bf16 once (prune_lora_config.h has their order). Data and rows of lora_a and t 16-byte aligned. Errors: those of
/// prune_compress, kUnsupported for another rank.
Status prune_compress_lora(const MatrixView& x, const MutableCompressedView& out, const LoraDown& lora, Stream stream);

/// out [m, k] (kBF16, host memory) = the dense matrix that the blocks stand for, dropped elements as +0. `blocks` is a
/// host copy of compressed_bytes(m, k) bytes; it is not trusted: kInvalidArgument when two indices of a group do not
/// rise. For tests and debugging.
Status decompress_on_host(const void* blocks, const MutableMatrixView& out);

/// A range of k of a compressed matrix whose k come from several producers, such as attention and MLP of a block that
/// multiplies them by one weight. No producer knows a row's scale; each leaves the sums of squares of its range, and
/// finish_scale() makes the scale of all.
///   matrix    the whole matrix; its `scale` is not touched and may be null
///   squares   [square_parts(matrix.k), m, 2] fp32, 8-byte aligned: sum x^2 and sum x~^2 of each 128 k of each row. A
///             producer may put the sums of several parts into the first of them and zeros into the others
///   k_offset  where the range begins, a multiple of 128. Its end is a multiple of 64
struct CompressedSlice {
  MutableCompressedView matrix{};
  float* squares = nullptr;
  int64_t k_offset = 0;
};

/// ceil(k / 128).
int64_t square_parts(int64_t k);

/// prune_compress of x [m, width] into out.matrix's k = out.k_offset .. + width - 1, with the row sums in the order
/// that prune_compress documents, in the first part of the range. Errors: those of prune_compress, kUnsupported for an
/// offset that is no multiple of 128.
Status prune_compress_slice(const MatrixView& x, const CompressedSlice& out, Stream stream);

/// matrix.scale[i] = s from the parts of row i: part p goes to sum p % 8 in rising order, then the sums 0..7 are added
/// from the left; then the formula of prune_compress. `matrix.blocks` is not read.
Status finish_scale(const MutableCompressedView& matrix, const float* squares, Stream stream);

enum class Norm {
  kLayerNorm,  ///< (x - mean) / sqrt(variance + eps)
  kRmsNorm,    ///< x / sqrt(mean of x^2 + eps)
};

struct NormModulateOptions {
  Norm norm = Norm::kLayerNorm;
  float eps = 1e-6f;
  MatrixView weight{};        ///< [1, k] kBF16; 1 without it
  MatrixView scale{};         ///< [images, k] kBF16, of the modulation; 0 without it. Row i of x belongs to image
                              ///< i / (m / images)
  MatrixView shift{};         ///< [images, k] kBF16; 0 without it
  MutableMatrixView dense{};  ///< [m, k] kBF16: y itself, for other consumers; not written without it
  LoraDown lora{};            ///< T = y L_A; not written without it
};

/// y = norm(x) weight (1 + scale) + shift in fp32, rounded to bf16 once, then out = prune_compress(y) and, if asked,
/// T = y L_A of the rounded y: what stands before the linears of a DiT's block, in one pass over x [m, k] (kBF16).
/// Blocks are prune_compress's bit for bit; the scale's sums have an order of their own, with fewer roundings than its.
/// Every operation and the order of every sum is fixed (norm_modulate_config.h states them). k at most 12288; with T
/// 8192, 5632 and 3584 for ranks up to 32, 64 and 128, because a cluster holds L_A.
/// Data and rows of all matrices 16-byte aligned. Outputs must not overlap each other nor anything that is read.
Status norm_modulate_prune_compress(const MatrixView& x, const MutableCompressedView& out,
                                    const NormModulateOptions& options, Stream stream);

/// What a product's sums go through before they are rounded to the output.
enum class Activation {
  kNone,
  kGeluTanh,  ///< y / 2 (1 + tanh(sqrt(2 / pi) (y + 0.044715 y^3))) of y rounded to bf16, within 2^-15 relatively for
              ///< |y| < 10, 0 for any y < -10.1; then rounded to bf16 again
};

/// What spmm adds to the product; all optional.
struct SpmmOptions {
  bool use_scale = true;   ///< false: s = 1
  MatrixView bias{};       ///< [1, n] kBF16, 16-byte aligned
  MatrixView lora_down{};  ///< T = X L_A, [m, r] kBF16, r a multiple of 8 in 8..128; rows 16-byte aligned
  MatrixView lora_up{};    ///< L_B transposed, [n, r] kBF16: row j holds what token factors add to column j, as in W
  int tile = -1;           ///< index into kSpmmTiles (spmm_config.h) for tests and benchmarks; -1: the plan chooses
  Activation activation = Activation::kNone;
  MatrixView gate{};      ///< [images, n] kBF16, with `residual`: d = residual + gate * y, where m is a multiple of
                          ///< `images` and row i of y belongs to image i / (m / images). Not with an activation
  MatrixView residual{};  ///< [m, n] kBF16; may be d itself, with the same row_stride
};

/// d [m, n] (kBF16) = s * (A W^T) + T L_B + bias with A the compressed activations and w [n, k] (kBF16) as it lies in
/// the checkpoint. Data and rows of w, d 16-byte aligned; n % 8 == 0 and k % 64 == 0, any m >= 1.
/// fp32 sums on the tensor cores; then s * sum, the low-rank product on top in the same accumulators, + bias, each
/// rounded to fp32, and one rounding to bf16. A gate and residual join before that rounding, by one fused multiply-add.
/// d must not overlap anything that is read, d as its own residual excepted.
Status spmm(const CompressedView& a, const MatrixView& w, const MutableMatrixView& d, const SpmmOptions& options,
            Stream stream);

/// spmm whose output is pruned and compressed where it is made, for the next product: out.matrix's k = out.k_offset ..
/// + n - 1 are, bit for bit, what prune_compress makes of spmm's d with the same options and tile; n % 64 == 0. A dense
/// d never exists. Sums of squares: within each 16 rows x tile columns, lane q of a row adds over rising columns j
/// those with j / 16 % 4 == q by fused multiply-adds from 0, then (q0 + q1) + (q2 + q3); column tile t of c columns
/// writes its sums to part t c / 128 (rounded down) of the range. So the tile can change the scale's last bits.
/// kUnsupported for a gate; out must not overlap anything that is read.
Status spmm_compress(const CompressedView& a, const MatrixView& w, const CompressedSlice& out,
                     const SpmmOptions& options, Stream stream);

}  // namespace rtlynx::sm90a
