#pragma once

#include <span>
#include <string>
#include <string_view>

#include "io/adapter.h"
#include "linear/linear.h"

namespace rtlynx::calibration {

/// Puts every linear into `mode`. Modes other than kSaNcLora need no adapter. Removes the branches of an earlier one.
void set_modes(std::span<Linear* const> linears, LinearMode mode, PlanPolicy policy);

/// Puts the linears that the adapter calls sparse into `mode` (with their branch where it is kSaNcLora) and all others
/// into dense mode. The adapter is checked first and nothing is changed when it does not fit: Error(kAdapterMismatch)
/// lists the differences (class, fingerprint, linears). An empty `fingerprint` leaves that check out. `origin` names
/// the adapter in messages.
void apply_adapter(std::span<Linear* const> linears, const io::Adapter& adapter, const std::string& origin,
                   std::string_view model_class, std::string_view fingerprint, LinearMode mode, PlanPolicy policy);

}  // namespace rtlynx::calibration
