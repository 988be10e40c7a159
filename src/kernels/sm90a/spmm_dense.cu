#include "kernels/sm90a/spmm_kernel.cuh"

namespace rtlynx::sm90a {

template SpmmKernel spmm_kernel_of<Epilogue::kDense>(int tile);
template SpmmKernel spmm_kernel_of<Epilogue::kGelu>(int tile);

}  // namespace rtlynx::sm90a
