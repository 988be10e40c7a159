#include <cuda_runtime_api.h>

#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/linear_config.h"

namespace rtlynx::sm90a {

Status linear(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y, const SpmmOptions& options,
              void* workspace, int64_t workspace_bytes, Stream stream) {
  if (Status status = check_linear(x, w, y, options, workspace, workspace_bytes); !status.ok()) return status;
  const MutableCompressedView compressed = compressed_in(workspace, x.rows, x.cols);
  if (Status status = prune_compress(x, compressed, stream); !status.ok()) return status;
  return spmm(read_only(compressed), w, y, options, stream);
}

Result<DeviceTraits> device_traits() {
  if (Status status = check_device(); !status.ok()) return status;
  const Result<int> device = current_device();
  if (!device.ok()) return device.status();
  DeviceTraits traits;
  const Status status =
      cuda_status(cudaDeviceGetAttribute(&traits.multiprocessors, cudaDevAttrMultiProcessorCount, device.value()),
                  "number of multiprocessors");
  if (!status.ok()) return status;
  return traits;
}

}  // namespace rtlynx::sm90a
