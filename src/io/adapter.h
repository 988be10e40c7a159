#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace rtlynx::io {

/// What calibration decided for one linear, and the factors of its low-rank branch.
struct AdapterLinear {
  std::string name;         ///< module path, as Linear::name()
  int64_t k = 0;            ///< inputs
  int64_t n = 0;            ///< outputs
  bool sparse = true;       ///< the decision
  std::string reason;       ///< why, for people; at most 4,096 bytes
  double energy_kept = 0;   ///< of the inputs by pruning: sum x~^2 / sum x^2, 0 to 1
  double error_before = 0;  ///< relative squared error of the outputs without the branch, >= 0
  double error_after = 0;   ///< and with it
  /// bf16, little-endian, row-major: lora_a [k, rank], lora_b [rank, n]. A sparse linear has both. A dense one has both
  /// where it could run sparse but does too much damage, neither where the branch does not help it.
  std::vector<std::byte> lora_a;
  std::vector<std::byte> lora_b;

  bool has_factors() const { return !lora_a.empty() || !lora_b.empty(); }
};

/// One adapter file, without torch.
struct Adapter {
  std::string model_class;                                ///< "FluxTransformer2DModel"
  std::string fingerprint;                                ///< io::fingerprint() of the weights it was made for
  std::string method = "closed-form";                     ///< how the factors were made
  int64_t rank = 0;                                       ///< of every branch, 1 to 4,096
  nlohmann::json calibration = nlohmann::json::object();  ///< settings: prompts, steps, seed, ridge, ...; scalars only
  std::vector<AdapterLinear> linears;                     ///< in the model's order
};

/// The newest version; readers refuse newer ones (kAdapterVersion). Version 2 lets dense linears keep their factors; it
/// is written where one does, version 1 elsewhere, so that older readers take what they understand.
inline constexpr int64_t kAdapterVersion = 2;

/// "rtlynx-r64-FLUX.1-dev.safetensors"
std::string adapter_file_name(int64_t rank, std::string_view model);

/// Atomically; equal adapters give equal bytes. Checks what read_adapter checks, and throws the same codes.
void write_adapter(const std::filesystem::path& path, const Adapter& adapter);

/// Throws Error: the codes of SafetensorsFile::open, kAdapterFormat, kAdapterVersion, kAdapterRank, kAdapterTensors,
/// kTensorDType (factors that are not bf16), kNonFinite (NaN or Inf among the factors).
Adapter read_adapter(const std::filesystem::path& path);

/// A linear of the model that an adapter is about to be applied to.
struct LinearShape {
  std::string name;
  int64_t k = 0;
  int64_t n = 0;
};

/// Throws Error(kAdapterMismatch) that lists the first five differences: class, fingerprint, linears that the model
/// lacks or has in another shape, sparse or not. Linears of the model that the adapter does not name are allowed (they
/// stay dense). An empty `fingerprint` leaves that check out. `origin` names the adapter.
void check_adapter(const Adapter& adapter, const std::string& origin, std::string_view model_class,
                   std::string_view fingerprint, std::span<const LinearShape> linears);

/// 16 hexadecimal digits: XXH64 over every tensor, sorted by name: name, NUL, dtype, NUL, rank and dimensions as
/// 64-bit little-endian numbers, bytes. Independent of shards. Reads all bytes, in 8 MiB pieces.
std::string fingerprint(const ComponentWeights& weights);

}  // namespace rtlynx::io
