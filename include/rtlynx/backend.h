#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "rtlynx/status.h"

namespace rtlynx {

/// Which implementation runs an operation of the kernel library.
enum class Backend {
  kReference,  ///< plain loops with fp64 sums: the oracle, always there, slow, one thread
  kCpu,        ///< SIMD code, chosen at run time among the targets below, several threads
};

/// "reference" or "cpu".
std::string_view backend_name(Backend backend);

/// Instruction sets that the cpu back end is compiled for. A larger value is a newer set.
enum class SimdTarget {
  kPortable,    ///< none of those below fits: the cpu back end runs the plain loops of the reference
  kAvx2,        ///< AVX2 + FMA, 256-bit
  kAvx512,      ///< AVX-512 F/BW/CD/DQ/VL; bf16 is widened to fp32 while it is packed
  kAvx512Bf16,  ///< the same, and bf16 products by vdpbf16ps (AVX512_BF16)
};

/// "portable", "avx2", "avx512", "avx512-bf16".
std::string_view simd_target_name(SimdTarget target);

/// The targets that are compiled in and that this machine can run, in rising order; never empty.
std::vector<SimdTarget> supported_simd_targets();

/// The target that new packed weights use: the forced one, else the fastest supported one. kAvx512Bf16 is chosen by
/// itself only on AMD processors: Intel's cores issue one vdpbf16ps every second cycle, a quarter of their fp32 FMA
/// rate, so that kAvx512 is the faster one there (docs/kernels-cpu.md).
SimdTarget simd_target();

/// Forces simd_target() for tests and comparisons; nullopt returns to the automatic choice. Already packed weights keep
/// the target they were packed for. Process-wide; not meant to race with pack(). kUnsupported if the machine lacks it.
Status force_simd_target(std::optional<SimdTarget> target);

/// True where dense bf16 products run on AMX tiles (16 times the rate of 512-bit FMA), whether or not torch uses them.
bool machine_has_amx_bf16();

/// Threads of one call: `count` >= 1, or 0 to follow OpenMP's setting of the calling thread (the default; it is what
/// torch's set_num_threads changes). The pool is OpenMP's own: in one process with torch both use the same libgomp, so
/// that no second set of spinning threads competes for the cores. Results never depend on the count.
/// Process-wide. kInvalidArgument outside of 0..4096.
Status set_num_threads(int count);

/// The number of threads that a call made now from this thread would use.
int num_threads();

/// Memory of the library, 64-byte aligned, from the one allocation seam (src/core/alloc.h).
struct BufferDeleter {
  void operator()(std::byte* bytes) const;
};
using Buffer = std::unique_ptr<std::byte[], BufferDeleter>;

/// Frees the calling thread's workspace, which SparseLinear::run and spmm otherwise keep, at its largest size so far,
/// until the thread ends.
void release_thread_workspace();

}  // namespace rtlynx
