#include "models/flow_match_euler_scheduler.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

using Settings = FlowMatchEulerScheduler::Settings;

void refuse_other_schedules(const io::Config& config) {
  // use_flow_sigmas is no key of this class, but FluxPipeline reads it from any scheduler's config.
  static constexpr std::array kRefused = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
                                          "use_flow_sigmas",   "invert_sigmas",          "stochastic_sampling"};
  for (const char* key : kRefused) {
    if (config.boolean(key, false)) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: {} is true, but this schedule is not implemented", config.origin(), key));
    }
  }
}

FlowMatchEulerScheduler::TimeShift parse_time_shift(const io::Config& config) {
  const std::string text = config.text("time_shift_type", "exponential");
  if (text == "exponential") return FlowMatchEulerScheduler::TimeShift::kExponential;
  if (text == "linear") return FlowMatchEulerScheduler::TimeShift::kLinear;
  throw Error(ErrorCode::kBadConfig,
              fmt::format("{}: time_shift_type is \"{}\", expected exponential or linear", config.origin(), text));
}

Settings parse(const io::Config& config) {
  refuse_other_schedules(config);
  constexpr double kMaxShift = 1e3;  // exp(mu) stays finite in fp32 only below 88; sigmas() checks its results
  constexpr int64_t kMaxTokens = int64_t{1} << 24;
  Settings settings;
  settings.num_train_timesteps = config.integer("num_train_timesteps", 1, 1'000'000, settings.num_train_timesteps);
  settings.shift = config.number("shift", 1e-3, kMaxShift, settings.shift);
  settings.use_dynamic_shifting = config.boolean("use_dynamic_shifting", false);
  settings.base_shift = config.number("base_shift", -kMaxShift, kMaxShift, settings.base_shift);
  settings.max_shift = config.number("max_shift", -kMaxShift, kMaxShift, settings.max_shift);
  settings.base_image_seq_len = config.integer("base_image_seq_len", 0, kMaxTokens, settings.base_image_seq_len);
  settings.max_image_seq_len = config.integer("max_image_seq_len", 0, kMaxTokens, settings.max_image_seq_len);
  if (settings.base_image_seq_len == settings.max_image_seq_len) {
    throw Error(ErrorCode::kBadConfig,
                fmt::format("{}: base_image_seq_len and max_image_seq_len are both {}, expected two different values",
                            config.origin(), settings.base_image_seq_len));
  }
  // 0 means "no terminal value" to diffusers, as null does.
  const double terminal = config.number("shift_terminal", 0.0, 0.999, 0.0);
  if (terminal > 0) settings.shift_terminal = terminal;
  settings.time_shift_type = parse_time_shift(config);
  return settings;
}

/// The shift grows linearly with the number of tokens (FluxPipeline's calculate_shift, in fp64).
double image_shift(const Settings& settings, int64_t image_seq_len) {
  const double slope = (settings.max_shift - settings.base_shift) /
                       static_cast<double>(settings.max_image_seq_len - settings.base_image_seq_len);
  const double offset = settings.base_shift - slope * static_cast<double>(settings.base_image_seq_len);
  return static_cast<double>(image_seq_len) * slope + offset;
}

std::vector<float> torch_start_sigmas(int64_t n) {
  const at::Tensor sigmas = at::linspace(1.0, 1.0 / static_cast<double>(n), n, at::kFloat);
  const auto* values = sigmas.const_data_ptr<float>();
  return {values, values + n};
}

/// numpy.linspace(1, 1/n, n) rounded to fp32: index * step + start in fp64, the last value exact.
std::vector<float> numpy_start_sigmas(int64_t n) {
  std::vector<float> sigmas(static_cast<std::size_t>(n), 1.0F);
  const double last = 1.0 / static_cast<double>(n);
  for (int64_t i = 1; i < n; ++i) {
    const double step = (last - 1.0) / static_cast<double>(n - 1);
    sigmas[i] = static_cast<float>(i + 1 == n ? last : static_cast<double>(i) * step + 1.0);
  }
  return sigmas;
}

void stretch_to_terminal(std::vector<float>& sigmas, double terminal) {
  const float factor = (1.0F - sigmas.back()) / static_cast<float>(1.0 - terminal);
  for (float& sigma : sigmas) sigma = 1.0F - (1.0F - sigma) / factor;
}

}  // namespace

FlowMatchEulerScheduler::FlowMatchEulerScheduler(const io::Config& config) : settings_(parse(config)) {}

FlowMatchEulerScheduler FlowMatchEulerScheduler::load(const std::filesystem::path& folder) {
  return FlowMatchEulerScheduler(io::Config::read(folder / "scheduler_config.json"));
}

float FlowMatchEulerScheduler::shifted(float sigma, double mu) const {
  if (!settings_.use_dynamic_shifting) {
    return static_cast<float>(settings_.shift) * sigma / (1.0F + static_cast<float>(settings_.shift - 1.0) * sigma);
  }
  const auto weight = static_cast<float>(settings_.time_shift_type == TimeShift::kExponential ? std::exp(mu) : mu);
  return weight / (weight + (1.0F / sigma - 1.0F));
}

std::vector<float> FlowMatchEulerScheduler::sigmas(int64_t num_inference_steps, int64_t image_seq_len,
                                                   StartSigmas start) const {
  constexpr int64_t kMaxSteps = 100'000;
  if (num_inference_steps < 1 || num_inference_steps > kMaxSteps) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("num_inference_steps is {}, expected 1 to {}", num_inference_steps, kMaxSteps));
  }
  std::vector<float> sigmas =
      start == StartSigmas::kTorch ? torch_start_sigmas(num_inference_steps) : numpy_start_sigmas(num_inference_steps);
  const double mu = image_shift(settings_, image_seq_len);
  for (float& sigma : sigmas) sigma = shifted(sigma, mu);
  if (settings_.shift_terminal) stretch_to_terminal(sigmas, *settings_.shift_terminal);
  for (std::size_t i = 0; i < sigmas.size(); ++i) {
    if (!std::isfinite(sigmas[i])) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("the schedule of {} steps for {} image tokens is not finite at step {} (mu {}){}",
                              num_inference_steps, image_seq_len, i + 1, mu,
                              settings_.shift_terminal ? "; with shift_terminal at least 2 steps are needed" : ""));
    }
  }
  sigmas.push_back(0.0F);
  return sigmas;
}

at::Tensor FlowMatchEulerScheduler::step(const at::Tensor& model_output, const at::Tensor& sample, float sigma,
                                         float sigma_next) {
  // A 0-dim tensor, not a number: it does not widen a bf16 product, and on a GPU it is rounded as diffusers' is.
  const at::Tensor dt = at::scalar_tensor(sigma_next - sigma, at::dtype(at::kFloat).device(model_output.device()));
  return (sample.to(at::kFloat) + dt * model_output).to(model_output.scalar_type());
}

}  // namespace rtlynx::models
