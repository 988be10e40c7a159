#pragma once

#include <string>

#include "calibration/skip.h"

namespace rtlynx::evaluation {

/// The curve, a line for each set that was measured: choice, linears left dense, share of the FLOPs that is sparse,
/// damage predicted and measured.
std::string skip_curve_csv(const calibration::SkipResult& result);
/// A line for each linear that the adapter has: decision, place in the choice, share of the FLOPs, damages.
std::string skip_linears_csv(const calibration::SkipResult& result);
/// The curve as an SVG picture: sparse share of the FLOPs to the right, damage upwards.
std::string skip_curve_svg(const calibration::SkipResult& result);

}  // namespace rtlynx::evaluation
