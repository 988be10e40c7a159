#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace rtlynx::check {

/// Cycles of the phases of spmm (spmm_phases.h) in three runs of `call`, means over warpgroups and tiles, on a line.
/// Nothing in builds without RTLYNX_SM90A_PHASES.
void print_phases(const std::string& name, int64_t k, const std::function<void()>& call);

}  // namespace rtlynx::check
