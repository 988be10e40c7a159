#include "evaluation/scorer.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include "io/safetensors.h"
#include "rtlynx/status.h"

namespace rtlynx::evaluation {
namespace {

/// A fp32 tensor out of a safetensors file. Throws Error(kTensorMissing, kTensorShape, kTensorDType).
at::Tensor read_float_tensor(const io::SafetensorsFile& file, std::string_view name,
                             const std::vector<int64_t>& shape) {
  const io::TensorInfo* info = file.find(name);
  const std::string where = fmt::format("{}: tensor {}", file.path().string(), name);
  if (info == nullptr) throw Error(ErrorCode::kTensorMissing, where + " is missing");
  if (info->dtype != DType::kF32) throw Error(ErrorCode::kTensorDType, where + ": expected F32");
  if (info->shape != shape) throw Error(ErrorCode::kTensorShape, where + ": the shape does not fit the scorer");
  at::Tensor tensor = at::empty(shape, at::kFloat);
  file.read(*info, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()});
  return tensor;
}

}  // namespace

Scorer::Scorer(const io::Config& config, Weights& weights) {
  vocabulary_ = SceneVocabulary::from_config(config);
  device_ = weights.placement().device;
  image_size_ = config.integer("image_size", 32, 4096);
  norm_groups_ = config.integer("norm_groups", 1, 1024);
  norm_eps_ = config.number("norm_eps", 0, 1);
  const std::vector<int64_t> channels = config.integers("channels", 1, 4096, 16);
  const int64_t num_features = config.integer("features", 1, 65536);

  int64_t inputs = 3;
  int64_t side = image_size_ / 2;
  for (std::size_t i = 0; i < channels.size(); ++i) {
    const int64_t outputs = channels[i];
    if (outputs % norm_groups_ != 0) {
      throw Error(ErrorCode::kBadConfig, fmt::format("{}: channels[{}] = {}: expected a multiple of norm_groups = {}",
                                                     config.origin(), i, outputs, norm_groups_));
    }
    for (const char part : {'a', 'b'}) {
      const std::string conv = fmt::format("stages.{}.conv_{}", i, part);
      const std::string norm = fmt::format("stages.{}.norm_{}", i, part);
      Convolution layer;
      layer.weight = weights.take(conv + ".weight", {outputs, part == 'a' ? inputs : outputs, 3, 3});
      layer.bias = weights.take(conv + ".bias", {outputs});
      layer.norm_weight = weights.take(norm + ".weight", {outputs});
      layer.norm_bias = weights.take(norm + ".bias", {outputs});
      layer.stride = part == 'a' ? 2 : 1;
      convolutions_.push_back(std::move(layer));
    }
    inputs = outputs;
    side = (side + 1) / 2;  // 3x3, stride 2, padding 1
  }
  feature_weight_ = weights.take("feature.weight", {num_features, inputs * side * side});
  feature_bias_ = weights.take("feature.bias", {num_features});
  for (std::size_t head = 0; head < kNumHeads; ++head) {
    const std::string name = fmt::format("heads.{}", kHeadNames[head]);
    const int64_t classes = vocabulary_.num_classes(head);
    heads_.emplace_back(weights.take(name + ".weight", {classes, num_features}),
                        weights.take(name + ".bias", {classes}));
  }
}

Scorer Scorer::load(const std::filesystem::path& folder, at::Device device) {
  const c10::InferenceMode guard;
  const io::Config config = io::Config::read(folder / "config.json");
  Weights weights = Weights::load(folder, Placement{device, at::kFloat});
  Scorer scorer(config, weights);
  weights.finish();

  const auto reference = io::SafetensorsFile::open(folder / "reference.safetensors");
  const int64_t size = scorer.feature_bias_.size(0);
  scorer.reference_.mean = read_float_tensor(reference, "mean", {size}).to(at::kDouble);
  scorer.reference_.covariance = read_float_tensor(reference, "covariance", {size, size}).to(at::kDouble);
  return scorer;
}

at::Tensor Scorer::features(at::Tensor x) const {
  x = at::avg_pool2d(x, {2, 2}, {2, 2});
  for (const Convolution& layer : convolutions_) {
    x = at::conv2d(x, layer.weight, layer.bias, layer.stride, 1);
    x = at::silu(at::group_norm(x, norm_groups_, layer.norm_weight, layer.norm_bias, norm_eps_));
  }
  return at::silu(at::linear(x.flatten(1), feature_weight_, feature_bias_));
}

Readings Scorer::read(const at::Tensor& image) const {
  const c10::InferenceMode guard;
  if (image.dim() != 4 || image.size(1) != 3 || image.size(2) != image_size_ || image.size(3) != image_size_) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the scorer reads pictures of {0} x {0} pixels, got {1} x {2}",
                                                         image_size_, image.size(-1), image.size(-2)));
  }
  const at::Tensor feature = features(image.to(device_, at::kFloat));
  Readings readings;
  readings.features = feature.cpu();
  readings.labels.resize(static_cast<std::size_t>(image.size(0)));
  for (std::size_t head = 0; head < kNumHeads; ++head) {
    const at::Tensor classes = at::linear(feature, heads_[head].first, heads_[head].second).argmax(1).cpu();
    const int64_t* found = classes.const_data_ptr<int64_t>();
    for (std::size_t i = 0; i < readings.labels.size(); ++i) readings.labels[i][head] = found[i];
  }
  return readings;
}

Readings Scorer::read(std::span<const pipeline::Image> images) const {
  std::vector<at::Tensor> batch;
  for (const pipeline::Image& image : images) {
    const at::Tensor pixels =
        at::from_blob(const_cast<uint8_t*>(image.rgb.data()), {image.height, image.width, 3}, at::kByte);
    batch.push_back(pixels.permute({2, 0, 1}).to(at::kFloat).div(127.5).sub(1));
  }
  return read(at::stack(batch));
}

}  // namespace rtlynx::evaluation
