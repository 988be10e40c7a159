#include "kernels/sm90a/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <string>

namespace rtlynx::sm90a {
namespace {

/// The driver's function, asked for at run time: the library then loads on machines without a driver.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
  static const auto function = [] {
    void* pointer = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &pointer, 12000, cudaEnableDefault, &found);
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) pointer = nullptr;
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(pointer);
  }();
  return function;
}

}  // namespace

Status make_tensor_map(const MatrixView& view, uint32_t box_columns, uint32_t box_rows, Swizzle swizzle,
                       CUtensorMap& map) {
  const auto encode = encode_function();
  if (encode == nullptr) {
    return {ErrorCode::kUnsupported, "the CUDA driver lacks cuTensorMapEncodeTiled (12.0 or newer is needed)"};
  }
  const cuuint64_t extents[2] = {static_cast<cuuint64_t>(view.cols), static_cast<cuuint64_t>(view.rows)};
  // A single row's stride is never used but still has to be a multiple of 16 bytes.
  const cuuint64_t row_bytes[1] = {(static_cast<cuuint64_t>(view.row_stride) * size_of(view.dtype) + 15) / 16 * 16};
  const cuuint32_t box[2] = {box_columns, box_rows};
  const cuuint32_t element_strides[2] = {1, 1};
  const CUtensorMapDataType type =
      view.dtype == DType::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8;
  const CUresult result = encode(&map, type, 2, const_cast<void*>(view.data), extents, row_bytes, box, element_strides,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 swizzle == Swizzle::k64Bytes ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return {};
  return {ErrorCode::kInternal, "cuTensorMapEncodeTiled refused a matrix of " + std::to_string(view.rows) + " x " +
                                    std::to_string(view.cols) + ", row_stride " + std::to_string(view.row_stride) +
                                    " (CUresult " + std::to_string(static_cast<int>(result)) + ")"};
}

}  // namespace rtlynx::sm90a
