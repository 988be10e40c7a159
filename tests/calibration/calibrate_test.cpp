#include "calibration/calibrate.h"

#include <gtest/gtest.h>

#include "calibration/apply_adapter.h"
#include "calibration/units.h"
#include "tests/calibration/killed_runs.h"
#include "tests/calibration/toy_model.h"
#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::calibration {
namespace {

using testing::expect_error;
using testing::expect_same_bytes_wherever_killed;
using testing::FaultyFileSystem;
using testing::slurp;
using testing::TemporaryFolder;
using testing::ToyModel;

CalibrationOptions options_for(const std::filesystem::path& output) {
  CalibrationOptions options;
  options.output = output;
  options.prompts = {"a fox", "a bear above a key", "an owl", "bread", "a crab"};
  options.seed = 7;
  options.batch_size = 2;
  options.num_inference_steps = 3;
  options.rank = 4;
  options.save_interval_seconds = 0;
  options.model_class = "Toy";
  options.fingerprint = "0123456789abcdef";
  options.settings = {{"guidance_scale", 3.5}};
  return options;
}

io::Adapter run(ToyModel& model, const CalibrationOptions& options, const CalibrationCallbacks& callbacks = {}) {
  const RunPrompts prompts = [&](const auto& texts, const auto& seeds, int64_t steps, const StepCallback& on_step) {
    model.run(texts, seeds, steps, on_step);
  };
  return calibrate(model.linears(), prompts, options, callbacks);
}

/// The adapter's bytes from a run without trouble.
std::string undisturbed_bytes() {
  static const std::string bytes = [] {
    const TemporaryFolder folder;
    ToyModel model;
    run(model, options_for(folder / "a.safetensors"));
    return slurp(folder / "a.safetensors");
  }();
  return bytes;
}

TEST(Calibrate, WritesAnAdapterThatLowersTheErrorOfEveryLinear) {
  const TemporaryFolder folder;
  ToyModel model;
  const io::Adapter adapter = run(model, options_for(folder / "a.safetensors"));
  ASSERT_EQ(adapter.linears.size(), 5U);
  for (const io::AdapterLinear& linear : adapter.linears) {
    EXPECT_TRUE(linear.sparse) << linear.reason;
    EXPECT_GT(linear.error_before, linear.error_after);
    EXPECT_GT(linear.energy_kept, 0.5);
    EXPECT_LT(linear.energy_kept, 1.0);
  }
  EXPECT_EQ(folder.count(), 1U) << "only the adapter is left";
  const io::Adapter read = io::read_adapter(folder / "a.safetensors");
  EXPECT_EQ(read.rank, 4);
  EXPECT_EQ(read.linears[4].lora_a, adapter.linears[4].lora_a);
  EXPECT_EQ(read.calibration.at("guidance_scale"), 3.5);
}

TEST(Calibrate, TheErrorsItNamesAreThoseOfTheLinears) {
  const TemporaryFolder folder;
  ToyModel model;
  const CalibrationOptions options = options_for(folder / "a.safetensors");
  const io::Adapter adapter = run(model, options);
  for (const LinearMode mode : {LinearMode::kSaNc, LinearMode::kSaNcLora}) {
    std::vector<double> lost(5, 0), whole(5, 0);
    for (std::size_t i = 0; i < 5; ++i) {  // only linear i is sparse, so its inputs are the dense ones
      ToyModel other;
      apply_adapter(other.linears(), adapter, "a", "Toy", "0123456789abcdef", mode, PlanPolicy::kSparse);
      std::vector<at::Tensor> inputs;
      Linear* linear = other.linears()[i];
      linear->set_observer([&](const Linear&, const at::Tensor& x) { inputs.push_back(x); });
      for (std::size_t j = 0; j < 5; ++j) {
        if (j != i) other.linears()[j]->set_mode(LinearMode::kDense, PlanPolicy::kAuto);
      }
      for (std::size_t p = 0; p < options.prompts.size(); ++p) {
        other.run({options.prompts[p]}, {options.seed + p}, options.num_inference_steps, {});
      }
      linear->set_observer({});
      for (const at::Tensor& x : inputs) {
        const at::Tensor dense = at::matmul(x, linear->weight().t());
        lost[i] += ((*linear)(x)-linear->bias() - dense).to(at::kDouble).square().sum().item<double>();
        whole[i] += dense.to(at::kDouble).square().sum().item<double>();
      }
      const io::AdapterLinear& named = adapter.linears[i];
      const double wanted = mode == LinearMode::kSaNc ? named.error_before : named.error_after;
      EXPECT_NEAR(lost[i] / whole[i], wanted, 1e-4 * named.error_before) << named.name;
    }
  }
}

TEST(Calibrate, PassesForcedByTheMemoryLimitGiveTheSameAdapter) {
  const TemporaryFolder folder;
  ToyModel model;
  CalibrationOptions options = options_for(folder / "a.safetensors");
  options.memory_limit = 2 * 24 * 24 * 8;  // the largest input alone
  std::vector<std::string> lines;
  run(model, options, {.progress = {}, .log = [&](const std::string& line) { lines.push_back(line); }});
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines[0].find("2 times"), std::string::npos) << lines[0];
  EXPECT_EQ(slurp(folder / "a.safetensors"), undisturbed_bytes());
  options.memory_limit -= 1;
  expect_error(ErrorCode::kOutOfMemory, {"down"}, [&] {
    options.output = folder / "b";
    run(model, options);
  });
}

TEST(Calibrate, StoppedAtEveryCallbackAndResumedGivesTheSameBytes) {
  const std::string wanted = undisturbed_bytes();
  const TemporaryFolder folder;
  ToyModel model;
  const CalibrationOptions options = options_for(folder / "a.safetensors");
  int stops = 0;
  for (bool finished = false; !finished; ++stops) {
    int allowed = 4;  // a chunk has three steps: each start gets one chunk further
    try {
      run(model, options, {.progress = [&](const CalibrationProgress&) { return --allowed > 0; }, .log = {}});
      finished = true;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
      ASSERT_FALSE(std::filesystem::exists(options.output));
    }
    ASSERT_LT(stops, 50);
  }
  EXPECT_GT(stops, 3);
  EXPECT_EQ(slurp(options.output), wanted);
}

TEST(Calibrate, KilledAtEveryFileOperationAndResumedGivesTheSameBytes) {
  expect_same_bytes_wherever_killed(undisturbed_bytes(), [](const std::filesystem::path& output) {
    ToyModel model;
    run(model, options_for(output));
  });
}

/// A single operation fails (disk full for a moment): an error, and the state stays good.
TEST(Calibrate, AnyOneFailingOperationLeavesAResumableState) {
  const std::string wanted = undisturbed_bytes();
  for (int64_t k = 1; k < 200; k += 3) {
    const TemporaryFolder folder;
    const CalibrationOptions options = options_for(folder / "a.safetensors");
    FaultyFileSystem faulty({.at_call = k, .error = ENOSPC});
    {
      const ScopedFileSystem scope(faulty);
      ToyModel model;
      try {
        run(model, options);
      } catch (const Error&) {
      }
    }
    if (!faulty.fired()) break;
    ToyModel model;
    run(model, options);
    ASSERT_EQ(slurp(options.output), wanted) << "call " << k;
  }
}

TEST(Calibrate, AnotherRunsStateIsRefusedWithWhatDiffers) {
  const TemporaryFolder folder;
  ToyModel model;
  CalibrationOptions options = options_for(folder / "a.safetensors");
  options.keep_state = true;
  run(model, options);
  const auto expect_refused = [&](std::string_view key, const std::function<void(CalibrationOptions&)>& change) {
    CalibrationOptions changed = options;
    change(changed);
    expect_error(ErrorCode::kOtherRun, {key}, [&] { run(model, changed); });
  };
  expect_refused("prompts", [](auto& o) { o.prompts.pop_back(); });
  expect_refused("seed", [](auto& o) { o.seed = 8; });
  expect_refused("num_inference_steps", [](auto& o) { o.num_inference_steps = 4; });
  expect_refused("rank", [](auto& o) { o.rank = 3; });
  expect_refused("fingerprint", [](auto& o) { o.fingerprint = "fedcba9876543210"; });
  expect_refused("settings", [](auto& o) { o.settings["guidance_scale"] = 1.0; });
  ToyModel wider(16);
  expect_error(ErrorCode::kOtherRun, {"linears"}, [&] { run(wider, options); });
}

TEST(Calibrate, UnitsOfAnotherShapeAreRefused) {
  const TemporaryFolder folder;
  ToyModel model;
  CalibrationOptions options = options_for(folder / "a.safetensors");
  options.keep_state = true;
  run(model, options);
  const std::filesystem::path state = options.output.string() + ".calibration";
  std::filesystem::copy_file(state / "linear-0001.safetensors", state / "linear-0000.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  expect_error(ErrorCode::kOtherRun, {"is about k, expected q"}, [&] { run(model, options); });
}

TEST(Calibrate, DeadInputsAreAnErrorThatNamesTheLinear) {
  const TemporaryFolder folder;
  ToyModel model;
  model.before_forward = [](at::Tensor& batch) { batch.zero_(); };
  expect_error(ErrorCode::kSingular, {"q"}, [&] { run(model, options_for(folder / "a")); });
}

TEST(Calibrate, ConstantInputsAreFittedOrTold) {
  const TemporaryFolder folder;
  ToyModel model;
  model.before_forward = [](at::Tensor& batch) { batch.fill_(1.5); };
  const io::Adapter adapter = run(model, options_for(folder / "a"));  // rank 1, made regular by the ridge
  for (const io::AdapterLinear& linear : adapter.linears) EXPECT_LE(linear.error_after, linear.error_before);
}

TEST(Calibrate, AnOutputThatIsNoFileIsRefusedBeforeTheWork) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "a");
  ToyModel model;
  expect_error(ErrorCode::kNotAFile, {"/a"}, [&] { run(model, options_for(folder / "a")); });
  expect_error(ErrorCode::kWriteFailed, {"missing/a"}, [&] { run(model, options_for(folder / "missing" / "a")); });
}

TEST(Calibrate, WrongOptionsAreRefused) {
  const TemporaryFolder folder;
  ToyModel model;
  const auto expect_refused = [&](std::string_view mention, const std::function<void(CalibrationOptions&)>& change) {
    CalibrationOptions options = options_for(folder / "a");
    change(options);
    expect_error(ErrorCode::kInvalidArgument, {mention}, [&] { run(model, options); });
  };
  expect_refused("prompts", [](auto& o) { o.prompts.clear(); });
  expect_refused("batch size", [](auto& o) { o.batch_size = 0; });
  expect_refused("steps", [](auto& o) { o.num_inference_steps = 0; });
  expect_refused("rank 13", [](auto& o) { o.rank = 13; });
  expect_refused("rank 0", [](auto& o) { o.rank = 0; });
  expect_refused("ridge", [](auto& o) { o.ridge = std::nan(""); });
  expect_refused("stride", [](auto& o) { o.token_stride = 0; });
  EXPECT_EQ(folder.count(), 0U);
}

TEST(ApplyAdapter, ChecksFirstAndChangesNothingWhenItDoesNotFit) {
  const TemporaryFolder folder;
  ToyModel model;
  io::Adapter adapter = run(model, options_for(folder / "a"));
  const auto apply = [&](std::string_view fingerprint) {
    apply_adapter(model.linears(), adapter, "a", "Toy", fingerprint, LinearMode::kSaNcLora, PlanPolicy::kSparse);
  };
  expect_error(ErrorCode::kAdapterMismatch, {"a"}, [&] { apply("fedcba9876543210"); });
  adapter.linears[2].name = "stranger";
  expect_error(ErrorCode::kAdapterMismatch, {"stranger"}, [&] { apply("0123456789abcdef"); });
  for (Linear* linear : model.linears()) EXPECT_EQ(linear->mode(), LinearMode::kDense);
  adapter.linears.erase(adapter.linears.begin() + 2);
  adapter.linears[0].sparse = false;
  adapter.linears[0].lora_a.clear();
  adapter.linears[0].lora_b.clear();
  apply("");
  const std::vector<LinearMode> wanted = {LinearMode::kDense, LinearMode::kSaNcLora, LinearMode::kDense,
                                          LinearMode::kSaNcLora, LinearMode::kSaNcLora};
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(model.linears()[i]->mode(), wanted[i]) << i;
}

TEST(Units, SumsComeBackBitByBit) {
  ToyModel model;
  const InputGroups groups = {{0, 1, 2}, {4}};
  Sums sums = empty_sums(model.linears(), groups), back = empty_sums(model.linears(), groups);
  sums.inputs[1].gram.normal_();
  sums.inputs[1].energy = 1.0 / 3;
  sums.inputs[0].tokens = int64_t{1} << 53;
  sums.error_energy = {0.1, 0.2, 1e-300, 0.4};
  EXPECT_EQ(sums_from_file(sums_to_file(sums, 5), "f", back), 5);
  EXPECT_TRUE(back.inputs[1].gram.equal(sums.inputs[1].gram));
  EXPECT_EQ(back.inputs[1].energy, sums.inputs[1].energy);
  EXPECT_EQ(back.inputs[0].tokens, sums.inputs[0].tokens);
  EXPECT_EQ(back.error_energy, sums.error_energy);
  Sums other = empty_sums(model.linears(), {{4}});
  expect_error(ErrorCode::kOtherRun, {"gram.0"}, [&] { sums_from_file(sums_to_file(sums, 5), "f", other); });
}

}  // namespace
}  // namespace rtlynx::calibration
