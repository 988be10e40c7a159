#include "kernels/sm90a/spmm_kernel.cuh"

namespace rtlynx::sm90a {

template SpmmKernel spmm_kernel_of<Epilogue::kCompressed>(int tile);
template SpmmKernel spmm_kernel_of<Epilogue::kGeluCompressed>(int tile);

}  // namespace rtlynx::sm90a
