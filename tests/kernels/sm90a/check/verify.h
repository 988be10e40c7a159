#pragma once

namespace rtlynx::check {

/// Runs all correctness checks, prints one line for each group and one for each failure; returns the number of
/// failures. `quick` leaves out the large shapes, for compute-sanitizer.
int verify(bool quick);

}  // namespace rtlynx::check
