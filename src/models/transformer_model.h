#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <string_view>
#include <utility>

#include "io/json.h"
#include "linear/weights.h"

namespace rtlynx::models {

/// Reads `<folder>/config.json` and the weights beside it; refuses tensors that the model does not have.
template <class Model, class Config>
Model load_transformer(const std::filesystem::path& folder, const Placement& placement) {
  const Config config = Config::parse(io::Config::read(folder / "config.json"));
  Weights weights = Weights::load(folder, placement);
  Model model(config, weights);
  weights.finish();
  return model;
}

/// Throws kInvalidArgument unless the input `name` of a transformer is defined and has the expected shape.
void expect_shape(std::string_view name, const at::Tensor& tensor, at::IntArrayRef expected);

/// Throws kInvalidArgument unless height and width, in image tokens, are positive and both sequences have 3 dimensions.
void expect_token_grid(int64_t height, int64_t width, const at::Tensor& hidden_states,
                       const at::Tensor& encoder_hidden_states);

/// Called in order of execution with a module's path, the name of its result ("hidden_states",
/// "encoder_hidden_states", "temb") and the result.
using BlockObserver = std::function<void(std::string_view module, std::string_view tensor, const at::Tensor& value)>;

/// A transformer whose intermediate results can be watched.
class ObservedModel {
 public:
  /// Returns the observer that was there before; an empty one removes it.
  BlockObserver set_block_observer(BlockObserver observer) { return std::exchange(observer_, std::move(observer)); }

 protected:
  bool is_observed() const { return observer_ != nullptr; }
  void observe(std::string_view module, std::string_view tensor, const at::Tensor& value) const {
    if (observer_) observer_(module, tensor, value);
  }

 private:
  BlockObserver observer_;
};

}  // namespace rtlynx::models
