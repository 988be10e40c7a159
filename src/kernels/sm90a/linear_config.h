#pragma once

#include "rtlynx/sm90a_linear.h"

/// Host arithmetic of linear: its checks and the figures of its plan.
namespace rtlynx::sm90a {

/// What the plan counts with, in cycles of the multiprocessors' clock. Predictions from single measurements on an H100
/// (docs/kernels-hopper.md), chosen in favour of dense; measurements of whole linears are to replace them.
struct LinearCosts {
  /// Multiply-adds of dense bf16 a cycle and multiprocessor that cuBLAS reaches: 90 % of the tensor cores' 2048.
  double dense_products = 0.90 * 2048;
  /// Bytes a cycle that a kernel bound by memory moves on the whole device: 2.8 TB/s at 1.7 GHz.
  double memory_bytes = 1650;
  /// Start and end of one kernel.
  double launch = 3500;
  /// Bytes that prune_compress moves for an element: 2 read, 1.125 written.
  double prune_bytes = 3.125;
  /// Fewer rows, n or k than these were never measured to gain.
  int64_t least_rows = 1024;
  int64_t least_extent = 2048;
  /// What is gained less than this is lost in the noise, and dense keeps the quality.
  double least_speedup = 1.03;
};
inline constexpr LinearCosts kLinearCosts{};

/// The workspace of one call: compressed activations, then T [m, rank], empty without a rank.
struct LinearWorkspace {
  MutableCompressedView compressed;
  MutableMatrixView t;
};

/// What a call of linear() does.
struct LinearSteps {
  MutableCompressedView compressed;
  LoraDown lora{};      ///< empty: prune_compress alone
  SpmmOptions options;  ///< with T, wherever it comes from
};

/// Checks everything that linear documents, those of the operations that it is made of included, and says where their
/// results go. Pure.
Result<LinearSteps> plan_linear_steps(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y,
                                      const SpmmOptions& options, void* workspace, int64_t workspace_bytes,
                                      const MatrixView& lora_a);

/// A workspace of linear_workspace_bytes(m, k, rank) bytes.
LinearWorkspace divide_workspace(void* workspace, int64_t m, int64_t k, int64_t rank);

}  // namespace rtlynx::sm90a
