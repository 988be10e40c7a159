#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "linear/linear.h"
#include "linear/weights.h"
#include "rtlynx/status.h"

namespace rtlynx::testing {

/// Five linears wired like a small block: q, k and v read one tensor, `out` another, `down` a GELU of it. Inputs depend
/// on prompt, seed and step alone.
class ToyModel {
 public:
  explicit ToyModel(int64_t width = 12, uint64_t weight_seed = 5) : width_(width) {
    at::set_num_threads(1);  // matrices this small only lose by waiting for a second thread
    at::manual_seed(weight_seed);
    std::map<std::string, at::Tensor> tensors;
    for (const char* name : {"q", "k", "v", "out"}) add(tensors, name, width, width);
    add(tensors, "down", width, 2 * width);
    Weights weights(std::move(tensors), "toy", {});
    for (const char* name : {"q", "k", "v", "out"}) linears_.emplace_back(weights, name, width, width, true);
    linears_.emplace_back(weights, "down", 2 * width, width, true);
  }

  std::vector<Linear*> linears() {
    std::vector<Linear*> pointers;
    for (Linear& linear : linears_) pointers.push_back(&linear);
    return pointers;
  }

  /// One forward: x [B, tokens, width].
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor q = linears_[0](x), k = linears_[1](x), v = linears_[2](x);
    const at::Tensor y = linears_[3](q * k.sigmoid() + v);
    return linears_[4](at::gelu(at::cat({y, x}, -1)));
  }

  at::Tensor input_of(const std::string& prompt, uint64_t seed, int64_t step) const {
    at::manual_seed(seed * 1000 + static_cast<uint64_t>(step) + prompt.size());
    return at::randn({7, width_});
  }

  /// What calibration::RunPrompts asks for; `before_forward` may change the batch.
  std::function<void(at::Tensor&)> before_forward;
  void run(const std::vector<std::string>& prompts, const std::vector<uint64_t>& seeds, int64_t steps,
           const std::function<bool(int64_t, int64_t)>& on_step) {
    for (int64_t step = 0; step < steps; ++step) {
      std::vector<at::Tensor> inputs;
      for (std::size_t i = 0; i < prompts.size(); ++i) inputs.push_back(input_of(prompts[i], seeds[i], step));
      at::Tensor batch = at::stack(inputs);
      if (before_forward) before_forward(batch);
      forward(batch);
      if (on_step && !on_step(step + 1, steps)) throw Error(ErrorCode::kCancelled, "toy: stopped");
    }
  }

 private:
  static void add(std::map<std::string, at::Tensor>& tensors, const std::string& name, int64_t n, int64_t k) {
    tensors[name + ".weight"] = at::randn({n, k}) / 3;
    tensors[name + ".bias"] = at::randn({n});
  }

  int64_t width_;
  std::vector<Linear> linears_;
};

}  // namespace rtlynx::testing
