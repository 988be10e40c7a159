#pragma once

#include <string>

#include "../oracle.h"

namespace rtlynx::check {

/// Runs all correctness checks, prints one line for each group and one for each failure; returns the number of
/// failures. `quick` leaves out the large shapes, for compute-sanitizer.
int verify(bool quick);

/// The part of verify() for outputs other than d: GELU, compressed output, slices of a compressed matrix.
int verify_outputs(bool quick);

/// The part of verify() for FP8: weights, activations, products.
int verify_fp8(bool quick);

/// The first element of g that is not GELU of y within one rounding to bf16, described; "" if none.
std::string compare_gelu(const test::HostMatrix& y, const test::HostMatrix& g);

/// The part of verify() for prune_compress_lora.
int verify_lora(bool quick);

/// The part of verify() for norm_modulate_prune_compress.
int verify_norm(bool quick);

}  // namespace rtlynx::check
