#pragma once

#include <cstdint>

/// Plain device code that sm90a_check measures the kernels against, and what its benchmark needs.
namespace rtlynx::check {

/// sum[i, j] = sum over k of x[i, k] w[j, k] in fp64, magnitude[i, j] the same of |x w|; x, w bf16 with rows packed.
void reference_product(const uint16_t* x, const uint16_t* w, int m, int n, int k, double* sum, double* magnitude);

/// Normal values in bf16, the same for the same seed.
void fill_gaussian(uint16_t* out, int64_t count, uint32_t seed);

}  // namespace rtlynx::check
