#pragma once

#include "oracle.h"

/// What norm_modulate_prune_compress must produce, computed on the host.
namespace rtlynx::test {

struct NormInputs {
  HostMatrix x;
  HostMatrix weight, scale, shift;  ///< no rows: absent; scale and shift have a row per image
  bool layer_norm = true;
  float eps = 1e-6f;
};

/// y in bf16, with every operation and sum in the order that norm_modulate_config.h promises for clusters of `ctas`.
HostMatrix norm_modulate_in_kernel_order(const NormInputs& in, int ctas);

/// The scales of y's rows in that order.
std::vector<float> norm_scales_in_kernel_order(const HostMatrix& y, int ctas);

/// The first element of `y` that is further from fp64's than rounding allows, described; "" if none.
std::string check_norm_modulate(const NormInputs& in, const HostMatrix& y);

}  // namespace rtlynx::test
