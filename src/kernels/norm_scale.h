#pragma once

#include <cmath>

namespace rtlynx {

/// p[j] + p[j + 8], then + 4, + 2, + 1: the order that sparse24.h promises. Destroys p.
inline float add_in_halves(float (&p)[16]) {
  for (int width = 8; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) p[j] += p[j + width];
  }
  return p[0];
}

/// The norm compensation; a zero row gives sqrt(0 / 1e-8) = 0.
inline float norm_scale(float sum, float sum_kept) {
  return std::sqrt(sum / (sum_kept + 1e-8f));
}

}  // namespace rtlynx
