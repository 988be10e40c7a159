#include "linear/sparse_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "rtlynx/status.h"

namespace rtlynx {
namespace {

constexpr int64_t kGroup = 4;
constexpr int64_t kKept = 2;

/// |x| as integers that compare as the rule wants: the bit patterns of non-negative floats are ordered like their
/// values (denormals included, whatever the thread's flush-to-zero state), and every NaN becomes the largest.
at::Tensor magnitude_keys(const at::Tensor& x) {
  const bool wide = x.scalar_type() == at::kFloat;
  const at::Tensor bits = x.abs().view(wide ? at::kInt : at::kShort);
  const int64_t largest = wide ? std::numeric_limits<int32_t>::max() : std::numeric_limits<int16_t>::max();
  return bits.masked_fill(x.isnan(), largest);
}

/// x padded with zeros to whole groups, as [..., groups, 4]; padding stands last, so it loses every tie.
at::Tensor in_groups(const at::Tensor& x) {
  const int64_t tail = x.size(-1) % kGroup;
  const at::Tensor whole = tail == 0 ? x.contiguous() : at::constant_pad_nd(x, {0, kGroup - tail});
  std::vector<int64_t> shape = whole.sizes().vec();
  shape.back() /= kGroup;
  shape.push_back(kGroup);
  return whole.view(shape);
}

}  // namespace

at::Tensor prune_24(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("prune: the input is {}, expected float, bfloat16 or half", at::toString(type)));
  }
  if (x.dim() == 0) {
    throw Error(ErrorCode::kInvalidArgument, "prune: the input has no dimension, expected [..., k]");
  }
  if (x.numel() == 0) {
    return x.clone();
  }
  const at::Tensor groups = in_groups(x);
  const std::vector<at::Tensor> keys = magnitude_keys(groups).unbind(-1);
  std::array<at::Tensor, kGroup> kept;
  for (std::size_t i = 0; i < kGroup; ++i) {
    at::Tensor beaten = at::zeros_like(keys[i], at::kByte);
    for (std::size_t j = 0; j < kGroup; ++j) {
      if (j != i) {
        beaten += j > i ? keys[i].ge(keys[j]) : keys[i].gt(keys[j]);
      }
    }
    kept[i] = beaten.ge(kGroup - kKept);
  }
  const at::Tensor mask = at::stack(kept, -1);
  std::vector<int64_t> padded = x.sizes().vec();
  padded.back() = groups.size(-2) * kGroup;
  return groups.masked_fill(mask.logical_not(), 0).view(padded).narrow(-1, 0, x.size(-1)).contiguous();
}

void KeptEnergy::add(const at::Tensor& x) {
  constexpr int64_t kPiece = int64_t{1} << 21;  // elements; pruning needs some 50 bytes for each
  const auto energy = [](const at::Tensor& t) { return t.to(at::kDouble).square_().sum().item<double>(); };
  if (x.numel() == 0) return;
  const int64_t k = x.dim() > 0 ? x.size(-1) : 1;
  for (const at::Tensor& rows : x.reshape({-1, k}).split(std::max<int64_t>(kPiece / k, 1))) {
    total += energy(rows);
    kept += energy(prune_24(rows));
  }
}

at::Tensor token_scale(const at::Tensor& x, const at::Tensor& pruned) {
  constexpr double kEpsilon = 1e-8;  // a zero token gets scale 0 and not 0/0
  const auto energy = [](const at::Tensor& t) { return t.to(at::kFloat).square().sum(-1, /*keepdim=*/true); };
  return energy(x).div_(energy(pruned).add_(kEpsilon)).sqrt_();
}

at::Tensor sparse_linear_by_torch(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                  const std::optional<LoraFactors>& lora, LinearMode mode) {
  if (mode == LinearMode::kDense || (mode == LinearMode::kSaNcLora && !lora)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("mode {} cannot run as a sparse linear{}", linear_mode_name(mode),
                            mode == LinearMode::kDense ? "" : " without its LoRA factors"));
  }
  const at::Tensor pruned = prune_24(x);
  at::Tensor y = at::linear(pruned, weight).to(at::kFloat);
  if (mode != LinearMode::kSa) {
    y.mul_(token_scale(x, pruned));
  }
  if (mode == LinearMode::kSaNcLora) {
    y.add_(at::matmul(at::matmul(x, lora->lora_a), lora->lora_b));
  }
  if (bias.defined()) {
    y.add_(bias);
  }
  return y.to(x.scalar_type());
}

}  // namespace rtlynx
