#include <cuda_runtime_api.h>

#include "kernels/sm90a/cuda_status.h"
#include "kernels/sm90a/device.h"
#include "kernels/sm90a/linear_config.h"

namespace rtlynx::sm90a {

Status linear(const MatrixView& x, const MatrixView& w, const MutableMatrixView& y, const SpmmOptions& options,
              void* workspace, int64_t workspace_bytes, Stream stream, const MatrixView& lora_a) {
  const Result<LinearSteps> plan = plan_linear_steps(x, w, y, options, workspace, workspace_bytes, lora_a);
  if (!plan.ok()) return plan.status();
  const LinearSteps& steps = plan.value();
  const Status pruned = steps.lora.lora_a.data == nullptr
                            ? prune_compress(x, steps.compressed, stream)
                            : prune_compress_lora(x, steps.compressed, steps.lora, stream);
  if (!pruned.ok()) return pruned;
  return spmm(read_only(steps.compressed), w, y, steps.options, stream);
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
