#include "kernels/sm90a/spmm_kernel.cuh"

namespace rtlynx::sm90a {

template SpmmKernel spmm_kernel_of<Epilogue::kDense, Format::kFp8>(int tile);
template SpmmKernel spmm_kernel_of<Epilogue::kGelu, Format::kFp8>(int tile);

/// At 192 columns ptxas would spill: 96 sums, two words of metadata a step, and the residual's words.
template <>
SpmmKernel spmm_kernel_of<Epilogue::kGatedResidual, Format::kFp8>(int tile) {
  constexpr SpmmKernel kKernels[kSpmmTileCount] = {spmm_kernel<0, Epilogue::kGatedResidual, Format::kFp8>, nullptr,
                                                   spmm_kernel<2, Epilogue::kGatedResidual, Format::kFp8>};
  return kKernels[tile];
}

}  // namespace rtlynx::sm90a
