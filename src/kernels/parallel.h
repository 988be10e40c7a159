#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace rtlynx {

/// The half-open share of `count` things that part `part` of `parts` works on: fixed, contiguous, even to within one.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};
inline Range share_of(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

/// Threads worth starting: one for every 2^20 multiplications or so, since waking one costs about 10 us.
inline int threads_for(int64_t multiplications, int available) {
  const int64_t useful = std::max<int64_t>(1, multiplications >> 20);
  return static_cast<int>(std::min<int64_t>(useful, available));
}

/// Calls body(thread, begin, end) once per thread with its share of `count`.
template <class Body>
void parallel_shares(int64_t count, int threads, const Body& body) {
  if (threads <= 1) {
    body(0, int64_t{0}, count);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const Range range = share_of(count, omp_get_thread_num(), omp_get_num_threads());
    body(omp_get_thread_num(), range.begin, range.end);
  }
}

}  // namespace rtlynx
