#pragma once

/// Marks functions that kernels and host code share, so that tests without a GPU run the very code of the kernels.
#ifdef __CUDACC__
#define RTLYNX_HOST_DEVICE __host__ __device__ __forceinline__
#define RTLYNX_UNROLL _Pragma("unroll")
#else
#define RTLYNX_HOST_DEVICE inline
#define RTLYNX_UNROLL
#endif
