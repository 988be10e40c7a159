#pragma once

#include <cstdint>

#include "rtlynx/backend.h"
#include "rtlynx/tensor_view.h"

namespace rtlynx {

inline constexpr int64_t kMaxRank = 1024;

/// L_A as fp32 [k][columns]; `columns` is the rank, for the cpu back end rounded up to 16 with zeros.
struct PackedLoraA {
  int64_t rank = 0;
  int64_t columns = 0;
  Buffer values;
};

/// Checks L_A against k and packs it; an empty view gives rank 0.
Result<PackedLoraA> pack_lora_a(std::string_view operation, const MatrixView& lora_a, int64_t k, bool is_padded);

}  // namespace rtlynx
