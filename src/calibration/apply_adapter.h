#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/adapter.h"
#include "linear/linear.h"

namespace rtlynx::calibration {

/// A mode of a whole model: how its sparse linears run, and whether those that the adapter decides to leave dense do.
struct ModelMode {
  ModelMode(LinearMode mode = LinearMode::kDense, bool skips = false) : linear(mode), skips_layers(skips) {}

  LinearMode linear;
  bool skips_layers;  ///< "sa-nc-lora-sl"; otherwise every linear that the adapter has factors for is sparse
  bool needs_adapter() const { return linear == LinearMode::kSaNcLora; }
};

/// "dense", "sa", "sa-nc", "sa-nc-lora", "sa-nc-lora-sl", in this order.
const std::vector<std::string>& model_mode_names();
/// Throws Error(kInvalidArgument) that lists the names.
ModelMode model_mode_from_name(std::string_view name);

/// Whether choose_skips() made the decisions of the adapter.
bool has_chosen_skips(const io::Adapter& adapter);

/// Puts every linear into `mode`. Modes other than kSaNcLora need no adapter. Removes the branches of an earlier one.
void set_modes(std::span<Linear* const> linears, LinearMode mode, PlanPolicy policy);

/// Puts the linears that the adapter has factors for into `mode` (with their branch where it is kSaNcLora), but for
/// those that it decides to leave dense where the mode skips layers, and all others into dense mode. The adapter is
/// checked first and nothing is changed when it does not fit: Error(kAdapterMismatch) lists the differences (class,
/// fingerprint, linears); Error(kInvalidArgument) where the mode skips layers and none were chosen. An empty
/// `fingerprint` leaves that check out. `origin` names the adapter in messages.
void apply_adapter(std::span<Linear* const> linears, const io::Adapter& adapter, const std::string& origin,
                   std::string_view model_class, std::string_view fingerprint, ModelMode mode, PlanPolicy policy);

}  // namespace rtlynx::calibration
