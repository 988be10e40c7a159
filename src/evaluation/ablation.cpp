#include "evaluation/ablation.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "calibration/state_folder.h"
#include "linear/sparse_ops.h"
#include "rtlynx/status.h"

namespace rtlynx::evaluation {
namespace {

/// The model's modes, and "sw" after the first.
const std::vector<Method>& all_methods() {
  static const std::vector<Method> methods = [] {
    std::vector<Method> all;
    for (const std::string& name : calibration::model_mode_names()) {
      all.push_back({name, calibration::model_mode_from_name(name), false});
    }
    all.insert(all.begin() + 1, {"sw", LinearMode::kDense, true});
    return all;
  }();
  return methods;
}

/// Puts the linears into a method's form for one batch, and back.
class ScopedMethod {
 public:
  ScopedMethod(const std::vector<Linear*>& linears, const Method& method, const AblationOptions& options)
      : linears_(linears) {
    if (method.prunes_weights) {
      for (Linear* linear : linears_) {
        weights_.push_back(linear->weight());
        linear->set_weight(prune_24(linear->weight()));
      }
    }
    if (method.mode.needs_adapter()) {
      calibration::apply_adapter(linears_, *options.adapter, "the adapter", options.adapter->model_class, "",
                                 method.mode, options.policy);
    } else {
      calibration::set_modes(linears_, method.mode.linear, options.policy);
    }
  }
  ~ScopedMethod() {
    calibration::set_modes(linears_, LinearMode::kDense, PlanPolicy::kAuto);
    for (std::size_t i = 0; i < weights_.size(); ++i) linears_[i]->set_weight(weights_[i]);
  }
  ScopedMethod(const ScopedMethod&) = delete;
  ScopedMethod& operator=(const ScopedMethod&) = delete;

 private:
  const std::vector<Linear*>& linears_;
  std::vector<at::Tensor> weights_;
};

/// What one method gave for one batch; all that the table needs.
struct BatchResult {
  at::Tensor features;  ///< [B, f] fp32
  at::Tensor labels;    ///< [B, kNumHeads] int64
  at::Tensor psnr;      ///< [B] fp64; empty for the dense row
  at::Tensor seconds;   ///< [1] fp64, per step and picture
  at::Tensor pictures;  ///< [columns, H, W, 3] uint8, in the first batch; else empty
};

at::Tensor to_tensor(const std::vector<Labels>& labels) {
  at::Tensor result = at::empty({static_cast<int64_t>(labels.size()), static_cast<int64_t>(kNumHeads)}, at::kLong);
  int64_t* out = result.mutable_data_ptr<int64_t>();
  for (const Labels& row : labels) out = std::copy(row.begin(), row.end(), out);
  return result;
}

at::Tensor to_tensor(std::span<const pipeline::Image> images) {
  if (images.empty()) return at::empty({0}, at::kByte);
  const auto& first = images.front();
  at::Tensor result = at::empty({static_cast<int64_t>(images.size()), first.height, first.width, 3}, at::kByte);
  uint8_t* out = result.mutable_data_ptr<uint8_t>();
  for (const auto& image : images) out = std::copy(image.rgb.begin(), image.rgb.end(), out);
  return result;
}

std::vector<pipeline::Image> to_images(const at::Tensor& pictures) {
  std::vector<pipeline::Image> images;
  if (pictures.dim() != 4) return images;
  const int64_t bytes = pictures.size(1) * pictures.size(2) * 3;
  const uint8_t* in = pictures.const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < pictures.size(0); ++i, in += bytes) {
    images.push_back({pictures.size(2), pictures.size(1), std::vector<uint8_t>(in, in + bytes), 0});
  }
  return images;
}

/// The run of all methods over one batch of scenes.
class BatchRunner {
 public:
  BatchRunner(pipeline::FluxPipeline& pipeline, const Scorer& scorer, const AblationOptions& options)
      : pipeline_(pipeline), scorer_(scorer), options_(options), linears_(pipeline.transformer().sparse_linears()) {}

  std::vector<BatchResult> run(std::span<const std::string> captions, int64_t first_index,
                               const std::function<void()>& on_method) {
    std::vector<uint64_t> seeds(captions.size());
    std::iota(seeds.begin(), seeds.end(), options_.seed + static_cast<uint64_t>(first_index));
    const auto embeddings = pipeline_.encode_prompts({captions.begin(), captions.end()});
    std::vector<BatchResult> results;
    std::vector<pipeline::Image> dense;
    for (const Method& method : options_.methods) {
      on_method();
      double seconds = 0;
      auto images = make(method, embeddings, seeds, seconds);
      results.push_back(summarise(images, dense, seconds, first_index == 0));
      if (dense.empty()) dense = std::move(images);
    }
    return results;
  }

 private:
  std::vector<pipeline::Image> make(const Method& method, const pipeline::PromptEmbeddings& embeddings,
                                    const std::vector<uint64_t>& seeds, double& seconds) {
    const ScopedMethod scope(linears_, method, options_);
    const auto& denoise = options_.denoise;
    at::Tensor latents = pipeline_.initial_latents(seeds, denoise.width, denoise.height);
    // The first step of a batch packs the weights of sparse linears, which a user pays once: it is left out.
    double first = 0;
    latents = pipeline_.denoise(embeddings, nullptr, latents, denoise, [&](int64_t step, int64_t, double elapsed) {
      if (step == 1 && denoise.num_inference_steps > 1) first = elapsed;
      seconds = elapsed - first;
      return true;
    });
    const int64_t timed = std::max<int64_t>(denoise.num_inference_steps - 1, 1);
    seconds /= static_cast<double>(timed) * static_cast<double>(seeds.size());
    return pipeline_.decode(latents, denoise.width, denoise.height, seeds);
  }

  BatchResult summarise(const std::vector<pipeline::Image>& images, const std::vector<pipeline::Image>& dense,
                        double seconds, bool keeps_pictures) const {
    const Readings readings = scorer_.read(images);
    BatchResult result;
    result.features = readings.features;
    result.labels = to_tensor(readings.labels);
    result.psnr = at::empty({static_cast<int64_t>(dense.size())}, at::kDouble);
    for (std::size_t i = 0; i < dense.size(); ++i) {
      result.psnr.mutable_data_ptr<double>()[i] = psnr(images[i], dense[i]);
    }
    result.seconds = at::full({1}, seconds, at::kDouble);
    const auto columns = std::min(images.size(), static_cast<std::size_t>(options_.sheet_columns));
    result.pictures = to_tensor(std::span(images).first(keeps_pictures ? columns : 0));
    return result;
  }

  pipeline::FluxPipeline& pipeline_;
  const Scorer& scorer_;
  const AblationOptions& options_;
  std::vector<Linear*> linears_;
};

constexpr std::array<std::pair<const char*, at::Tensor BatchResult::*>, 5> kFields = {
    {{"features", &BatchResult::features},
     {"labels", &BatchResult::labels},
     {"psnr", &BatchResult::psnr},
     {"seconds", &BatchResult::seconds},
     {"pictures", &BatchResult::pictures}}};

TensorFile to_file(const std::vector<BatchResult>& results) {
  TensorFile file;
  for (std::size_t i = 0; i < results.size(); ++i) {
    for (const auto& [name, field] : kFields) file.tensors[fmt::format("{}.{}", i, name)] = results[i].*field;
  }
  return file;
}

std::vector<BatchResult> from_file(const TensorFile& file, std::size_t num_methods, const std::string& origin) {
  std::vector<BatchResult> results(num_methods);
  for (std::size_t i = 0; i < num_methods; ++i) {
    for (const auto& [name, field] : kFields) {
      const auto found = file.tensors.find(fmt::format("{}.{}", i, name));
      if (found == file.tensors.end()) {
        throw Error(ErrorCode::kOtherRun,
                    fmt::format("{}: lacks {}.{}; remove the folder to start anew", origin, i, name));
      }
      results[i].*field = found->second;
    }
  }
  return results;
}

nlohmann::json describe(const AblationOptions& options) {
  nlohmann::json run = {{"kind", "ablation"},
                        {"identity", options.identity},
                        {"prompts", options.num_prompts},
                        {"seed", options.seed},
                        {"batch_size", options.batch_size},
                        {"sheet_columns", options.sheet_columns},
                        {"width", options.denoise.width},
                        {"height", options.denoise.height},
                        {"steps", options.denoise.num_inference_steps},
                        {"guidance_scale", options.denoise.guidance_scale},
                        {"plan", static_cast<int>(options.policy)}};
  for (const Method& method : options.methods) run["methods"].push_back(method.name);
  return run;
}

void check(const AblationOptions& options) {
  const auto refuse = [](const std::string& what) { throw Error(ErrorCode::kInvalidArgument, "evaluate: " + what); };
  if (options.methods.empty() || options.methods.front().name != "dense") {
    refuse("the first mode must be dense: the others are compared with it");
  }
  if (options.num_prompts < 2) refuse(fmt::format("{} prompts: expected at least 2", options.num_prompts));
  if (options.batch_size < 1) refuse(fmt::format("batch size {}: expected at least 1", options.batch_size));
  for (const Method& method : options.methods) {
    if (method.mode.needs_adapter() && !options.adapter) refuse(fmt::format("mode {} needs an adapter", method.name));
  }
}

/// The rows of the table from all batches' results.
MethodResult aggregate(const std::string& name, const std::vector<std::vector<BatchResult>>& batches,
                       std::size_t method, std::span<const Labels> asked, const FeatureMoments& reference) {
  std::vector<at::Tensor> features;
  std::vector<at::Tensor> psnrs;
  std::vector<double> seconds;
  std::vector<Labels> found;
  for (const auto& batch : batches) {
    const BatchResult& result = batch[method];
    features.push_back(result.features);
    psnrs.push_back(result.psnr);
    seconds.push_back(result.seconds.item<double>());
    const int64_t* labels = result.labels.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < result.labels.size(0); ++i, labels += kNumHeads) {
      std::copy_n(labels, kNumHeads, found.emplace_back().begin());
    }
  }
  MethodResult row;
  row.name = name;
  row.accuracy = prompt_accuracy(asked, found);
  row.per_head = head_accuracy(asked, found);
  row.frechet = frechet_distance(moments(at::cat(features)), reference);
  if (method > 0) row.psnr = at::cat(psnrs).mean().item<double>();
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  row.seconds_per_step = seconds[seconds.size() / 2];
  return row;
}

}  // namespace

Method method_from_name(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Method& method : all_methods()) {
    if (method.name == name) return method;
    names.push_back(method.name);
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("mode '{}': expected one of {}", name, fmt::join(names, ", ")));
}

AblationResult run_ablation(pipeline::FluxPipeline& pipeline, const Scorer& scorer, const AblationOptions& options,
                            const AblationProgress& progress) {
  const c10::InferenceMode guard;
  check(options);
  const auto scenes = draw_scenes(scorer.vocabulary(), options.seed, options.num_prompts);
  std::vector<std::string> captions;
  std::vector<Labels> asked;
  for (const Scene& scene : scenes) {
    captions.push_back(caption(scorer.vocabulary(), scene));
    asked.push_back(labels(scorer.vocabulary(), scene));
  }

  const auto state = calibration::StateFolder::open(options.state, describe(options));
  BatchRunner runner(pipeline, scorer, options);
  std::vector<std::vector<BatchResult>> batches;
  const auto num_methods = static_cast<int64_t>(options.methods.size());
  const int64_t total = (options.num_prompts + options.batch_size - 1) / options.batch_size * num_methods;
  int64_t done = 0;
  const auto report = [&] {
    if (progress) progress(done, total);
  };
  for (int64_t start = 0; start < options.num_prompts; start += options.batch_size) {
    const std::string unit = fmt::format("batch-{:06}", start);
    if (const auto saved = state.load(unit)) {
      batches.push_back(from_file(*saved, options.methods.size(), state.path_of(unit).string()));
      done += num_methods;
      continue;
    }
    const int64_t count = std::min(options.batch_size, options.num_prompts - start);
    const auto batch = std::span(captions).subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(count));
    int64_t finished = 0;
    batches.push_back(runner.run(batch, start, [&] {
      if (progress) progress(done + finished++, total);
    }));
    done += num_methods;
    state.save(unit, to_file(batches.back()));
  }
  report();

  AblationResult result;
  for (std::size_t i = 0; i < options.methods.size(); ++i) {
    result.methods.push_back(aggregate(options.methods[i].name, batches, i, asked, scorer.reference()));
    result.pictures.push_back(to_images(batches.front()[i].pictures));
  }
  captions.resize(std::min(captions.size(), result.pictures.front().size()));
  result.captions = std::move(captions);
  state.remove();
  return result;
}

}  // namespace rtlynx::evaluation
