#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace rtlynx {

/// Where a model's tensors live and in which type it computes.
struct Placement {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
};

/// The state dict of one component. A model takes each tensor by its checkpoint name and exact shape while it is
/// built; finish() then refuses a checkpoint that holds tensors nobody asked for. Throws Error.
class Weights {
 public:
  /// Reads `<folder>/diffusion_pytorch_model*.safetensors` or `model*.safetensors`, tensor by tensor to the device,
  /// without those that finish() would ignore too.
  static Weights load(const std::filesystem::path& component_folder, const Placement& placement,
                      const std::vector<std::string>& ignored = {});
  /// For tests and random models.
  Weights(std::map<std::string, at::Tensor> tensors, std::string origin, const Placement& placement);

  bool has(const std::string& name) const;
  /// Throws Error(kTensorMissing) or Error(kTensorShape), naming the file, the tensor, both shapes.
  at::Tensor take(const std::string& name, at::IntArrayRef shape);
  const Placement& placement() const { return placement_; }
  /// Throws Error(kTensorUnexpected) naming the first tensors left, unless they match one of `ignored` exactly or begin
  /// with one of its entries that ends in a dot ("encoder.").
  void finish(const std::vector<std::string>& ignored = {}) const;

 private:
  std::map<std::string, at::Tensor> tensors_;
  std::string origin_;
  Placement placement_;
};

}  // namespace rtlynx
