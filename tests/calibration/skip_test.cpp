#include "calibration/skip.h"

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

constexpr std::string_view kFingerprint = "0123456789abcdef";
constexpr int64_t kRank = 2;
constexpr std::size_t kNone = 5;

/// The toy as a model of velocities; it counts its predictions.
struct ToyVelocity {
  ToyModel toy;
  int64_t predictions = 0;
  VelocityModel model = {[this](const auto& prompts, const auto& seeds, int64_t steps, const auto& on_step) {
                           for (int64_t step = 0; step < steps; ++step) {
                             std::vector<at::Tensor> inputs;
                             for (std::size_t i = 0; i < prompts.size(); ++i)
                               inputs.push_back(toy.input_of(prompts[i], seeds[i], step));
                             const at::Tensor latents = at::stack(inputs);
                             if (!on_step(step, latents, toy.forward(latents)))
                               throw Error(ErrorCode::kCancelled, "toy: stopped");
                           }
                         },
                         [this](const auto&, const at::Tensor& latents, int64_t, int64_t) {
                           ++predictions;
                           return toy.forward(latents);
                         }};
};

/// Small random branches; that of linear `spoiled` is large and wrong.
io::Adapter adapter_with(std::size_t spoiled) {
  ToyModel toy;
  at::manual_seed(3);
  io::Adapter adapter;
  adapter.model_class = "Toy";
  adapter.fingerprint = kFingerprint;
  adapter.rank = kRank;
  adapter.calibration = {{"prompts", 5}};
  for (std::size_t i = 0; i < 5; ++i) {
    const Linear& linear = *toy.linears()[i];
    io::AdapterLinear entry;
    entry.name = linear.name();
    entry.k = linear.k();
    entry.n = linear.n();
    entry.reason = "-";
    entry.lora_a = bf16_bytes(at::randn({entry.k, kRank}) * (i == spoiled ? 3 : 0.01));
    entry.lora_b = bf16_bytes(at::randn({kRank, entry.n}));
    adapter.linears.push_back(entry);
  }
  return adapter;
}

SkipOptions options_for(const std::filesystem::path& output) {
  SkipOptions options;
  options.output = output;
  options.search = {.sparse_flops = 0.6, .candidates = 3, .chosen_a_round = 1, .whole_curve = false};
  options.damage.prompts = {"a fox", "an owl", "bread"};
  options.damage.seed = 7;
  options.damage.batch_size = 2;
  options.damage.num_inference_steps = 6;
  options.damage.num_timesteps = 2;
  options.settings = {{"guidance_scale", 3.5}};
  return options;
}

SkipResult run(ToyVelocity& velocity, const io::Adapter& adapter, const SkipOptions& options,
               const std::function<bool(const SkipProgress&)>& progress = {}) {
  return choose_skips(velocity.toy.linears(), velocity.model, adapter, "the adapter", options, progress);
}

std::string undisturbed_bytes() {
  static const std::string bytes = [] {
    const TemporaryFolder folder;
    ToyVelocity velocity;
    run(velocity, adapter_with(2), options_for(folder / "a.safetensors"));
    return slurp(folder / "a.safetensors");
  }();
  return bytes;
}

TEST(SpreadSteps, AreTheMiddlesOfEqualParts) {
  EXPECT_EQ(spread_steps(20, 5), (std::vector<int64_t>{2, 6, 10, 14, 18}));
  EXPECT_EQ(spread_steps(4, 4), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(spread_steps(7, 1), (std::vector<int64_t>{3}));
}

TEST(ChooseSkips, TheDamagingLinearIsChosenFirst) {
  for (std::size_t spoiled = 0; spoiled < 5; ++spoiled) {
    const TemporaryFolder folder;
    ToyVelocity velocity;
    const SkipResult result = run(velocity, adapter_with(spoiled), options_for(folder / "a.safetensors"));
    ASSERT_FALSE(result.choice.order.empty());
    EXPECT_EQ(result.choice.order[0], spoiled);
    EXPECT_LT(result.choice.damage, result.choice.damage_all / 2);
    EXPECT_EQ(folder.count(), 1U) << "only the adapter is left";
    for (const Linear* linear : velocity.toy.linears()) EXPECT_EQ(linear->mode(), LinearMode::kDense);
    double dense = 0;
    for (const std::size_t i : result.choice.order) dense += result.shares[i];
    EXPECT_LE(dense, 0.4 + 1e-12);
    // q, k, v and out take 12 x 12 for each token, down 12 x 24.
    for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(result.shares[i], (i == 4 ? 2 : 1) / 6.0, 1e-12);
  }
}

TEST(ChooseSkips, TheAdapterKeepsEveryBranchAndSaysWhatIsDenseAndWhy) {
  const TemporaryFolder folder;
  const io::Adapter before = adapter_with(2);
  ToyVelocity velocity;
  const SkipResult result = run(velocity, before, options_for(folder / "a.safetensors"));
  const io::Adapter read = io::read_adapter(folder / "a.safetensors");
  ASSERT_EQ(read.linears.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(read.linears[i].sparse, result.choice.sparse[i]);
    EXPECT_EQ(read.linears[i].lora_a, before.linears[i].lora_a);
    EXPECT_EQ(read.linears[i].lora_b, before.linears[i].lora_b);
    const char* share = i == 4 ? "alone, 33.33 % of the FLOPs" : "alone, 16.67 % of the FLOPs";
    EXPECT_NE(read.linears[i].reason.find(share), std::string::npos) << read.linears[i].reason;
  }
  EXPECT_FALSE(read.linears[2].sparse);
  EXPECT_NE(read.linears[2].reason.find("1st of 2 left dense"), std::string::npos) << read.linears[2].reason;
  EXPECT_EQ(read.calibration.at("sparse_flops"), 0.6);
  EXPECT_EQ(read.calibration.at("damage"), result.choice.damage);
  EXPECT_EQ(read.calibration.at("prompts"), 5) << "what calibrate wrote stays";

  const auto modes = [&](ModelMode mode) {
    apply_adapter(velocity.toy.linears(), read, "a", "Toy", kFingerprint, mode, PlanPolicy::kSparse);
    std::vector<bool> sparse;
    for (const Linear* linear : velocity.toy.linears()) sparse.push_back(linear->mode() == LinearMode::kSaNcLora);
    return sparse;
  };
  EXPECT_EQ(modes(model_mode_from_name("sa-nc-lora-sl")), result.choice.sparse);
  EXPECT_EQ(modes(model_mode_from_name("sa-nc-lora")), std::vector<bool>(5, true));
}

TEST(ChooseSkips, TheDamagesAreThoseOfTheVelocities) {
  const TemporaryFolder folder;
  const io::Adapter adapter = adapter_with(1);
  ToyVelocity velocity;
  const SkipOptions options = options_for(folder / "a.safetensors");
  const SkipResult result = run(velocity, adapter, options);
  for (std::size_t i = 0; i < 5; ++i) {
    ToyModel dense, sparse;
    apply_adapter(sparse.linears(), adapter, "a", "Toy", "", LinearMode::kSaNcLora, PlanPolicy::kSparse);
    for (std::size_t j = 0; j < 5; ++j) {
      if (j != i) sparse.linears()[j]->set_mode(LinearMode::kDense, PlanPolicy::kAuto);
    }
    double sum = 0;
    for (std::size_t p = 0; p < 3; ++p) {
      for (const int64_t step : {1, 4}) {
        const at::Tensor x = dense.input_of(options.damage.prompts[p], 7 + p, step).unsqueeze(0);
        const at::Tensor wanted = dense.forward(x).to(at::kDouble);
        sum += (sparse.forward(x).to(at::kDouble) - wanted).square().sum().item<double>() /
               wanted.square().sum().item<double>();
      }
    }
    EXPECT_NEAR(result.choice.alone[i], sum / 6, 1e-4 * sum) << i;
  }
}

TEST(DamageMeter, NothingSparseDoesNoDamage) {
  const TemporaryFolder folder;
  ToyVelocity velocity;
  const SkipOptions options = options_for(folder / "a");
  const StateFolder state = StateFolder::open(folder / "state", {});
  const std::vector<Linear*> linears = velocity.toy.linears();
  DamageMeter meter(linears, velocity.model, options.damage, state);
  meter.prepare();
  EXPECT_EQ(meter.measure(SparseSet(5, false)), 0);
  // 3 prompts of 7 tokens
  EXPECT_EQ(meter.flops(), (std::vector<int64_t>{3024, 3024, 3024, 3024, 6048}));
}

TEST(ChooseSkips, StoppedAnywhereAndResumedGivesTheSameBytesAndLosesOneMeasurementAtMost) {
  const std::string wanted = undisturbed_bytes();
  int64_t whole = 0;
  {
    const TemporaryFolder folder;
    ToyVelocity velocity;
    run(velocity, adapter_with(2), options_for(folder / "a.safetensors"));
    whole = velocity.predictions;
  }
  const TemporaryFolder folder;
  const SkipOptions options = options_for(folder / "a.safetensors");
  ToyVelocity velocity;
  int64_t stops = 0;
  for (bool finished = false; !finished; ++stops) {
    // The dense steps of a batch count as one piece of work: a start must be allowed more than their six reports.
    int64_t allowed = 9, last = -1;
    try {
      run(velocity, adapter_with(2), options, [&](const SkipProgress& progress) {
        if (progress.stage == SkipProgress::Stage::kMeasure && progress.done > last) last = progress.done;
        return --allowed > 0 || (progress.stage == SkipProgress::Stage::kMeasure && progress.done < 3 * stops);
      });
      finished = true;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
      ASSERT_FALSE(std::filesystem::exists(options.output));
    }
    ASSERT_LT(stops, 50);
  }
  EXPECT_GT(stops, 3);
  EXPECT_EQ(slurp(options.output), wanted);
  EXPECT_EQ(velocity.predictions, whole) << "what was measured is not measured again";
}

TEST(ChooseSkips, KilledAtEveryFileOperationAndResumedGivesTheSameBytes) {
  expect_same_bytes_wherever_killed(undisturbed_bytes(), [](const std::filesystem::path& output) {
    ToyVelocity velocity;
    run(velocity, adapter_with(2), options_for(output));
  });
}

TEST(ChooseSkips, WrittenOverItsOwnAdapterAndChosenAgainGivesTheSameBytes) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "a.safetensors";
  io::write_adapter(path, adapter_with(2));
  for (int time = 0; time < 2; ++time) {
    ToyVelocity velocity;
    run(velocity, io::read_adapter(path), options_for(path));
    EXPECT_EQ(slurp(path), undisturbed_bytes()) << time;
  }
}

TEST(ChooseSkips, AnotherBudgetContinuesFromAKeptState) {
  const TemporaryFolder folder;
  SkipOptions options = options_for(folder / "a.safetensors");
  options.keep_state = true;
  ToyVelocity velocity;
  run(velocity, adapter_with(2), options);
  const int64_t first = velocity.predictions;
  options.search.sparse_flops = 0.8;
  const SkipResult second = run(velocity, adapter_with(2), options);
  EXPECT_EQ(second.choice.order.size(), 1U);
  EXPECT_LT(velocity.predictions - first, first / 2);

  const auto refused = [&](std::string_view key, const std::function<void(SkipOptions&)>& change) {
    SkipOptions changed = options;
    change(changed);
    expect_error(ErrorCode::kOtherRun, {key}, [&] { run(velocity, adapter_with(2), changed); });
  };
  refused("seed", [](auto& o) { o.damage.seed = 8; });
  refused("num_timesteps", [](auto& o) { o.damage.num_timesteps = 3; });
  refused("settings", [](auto& o) { o.settings["guidance_scale"] = 1.0; });
  expect_error(ErrorCode::kOtherRun, {"factors"}, [&] { run(velocity, adapter_with(3), options); });
}

TEST(ChooseSkips, TimesDecideWhereTheyAreGiven) {
  const TemporaryFolder folder;
  SkipOptions options = options_for(folder / "a.safetensors");
  options.search.sparse_flops = 0.66;
  options.search.candidates = 5;
  for (const int64_t slow : {12, 24}) {  // linears of that k are no faster sparse, so one of them is left dense first
    options.saved_ms = [slow](int64_t m, int64_t n, int64_t k) {
      EXPECT_EQ(m, 7);
      EXPECT_EQ(n, 12);
      return k == slow ? 0.0 : 1.0;
    };
    ToyVelocity velocity;
    const SkipResult result = run(velocity, adapter_with(kNone), options);
    ASSERT_FALSE(result.choice.order.empty());
    EXPECT_EQ(result.choice.order[0] == 4, slow == 24);
    EXPECT_EQ(result.adapter.calibration.at("skip_by"), "milliseconds");
  }
}

TEST(ChooseSkips, LinearsWithoutABranchStayDense) {
  const TemporaryFolder folder;
  io::Adapter adapter = adapter_with(2);
  adapter.linears[0] = {adapter.linears[0].name, 12, 12, false, "the branch would raise the error", 0, 0, 0, {}, {}};
  adapter.linears.erase(adapter.linears.begin() + 1);  // not in the adapter at all
  ToyVelocity velocity;
  const SkipResult result = run(velocity, adapter, options_for(folder / "a.safetensors"));
  EXPECT_FALSE(result.choice.sparse[0]);
  EXPECT_FALSE(result.choice.sparse[1]);
  EXPECT_TRUE(result.choice.order.empty()) << "they have used up the budget: 4 of 6 parts are left, 0.6 asked for";
  EXPECT_EQ(result.adapter.linears[0].reason, "the branch would raise the error");
}

TEST(ChooseSkips, WrongInputsAreRefusedAndLeaveTheLinearsDense) {
  const TemporaryFolder folder;
  ToyVelocity velocity;
  const auto refused = [&](ErrorCode code, std::string_view mention, const std::function<void(SkipOptions&)>& change) {
    SkipOptions options = options_for(folder / "a");
    change(options);
    expect_error(code, {mention}, [&] { run(velocity, adapter_with(2), options); });
    for (const Linear* linear : velocity.toy.linears()) EXPECT_EQ(linear->mode(), LinearMode::kDense);
    std::filesystem::remove_all(folder / "a.skip");
  };
  const auto invalid = ErrorCode::kInvalidArgument;
  refused(invalid, "no prompts", [](auto& o) { o.damage.prompts.clear(); });
  refused(invalid, "batch size 0", [](auto& o) { o.damage.batch_size = 0; });
  refused(invalid, "7 timesteps of 6", [](auto& o) { o.damage.num_timesteps = 7; });
  refused(invalid, "0 timesteps", [](auto& o) { o.damage.num_timesteps = 0; });
  refused(invalid, "of the FLOPs sparse", [](auto& o) { o.search.sparse_flops = 0; });
  refused(invalid, "no output", [](auto& o) { o.output.clear(); });
  refused(ErrorCode::kNotAFile, "regular", [&](auto& o) { o.output = folder / "."; });
  SkipOptions options = options_for(folder / "a");
  io::Adapter stranger = adapter_with(2);
  stranger.linears[0].name = "stranger";
  expect_error(ErrorCode::kAdapterMismatch, {"stranger"}, [&] { run(velocity, stranger, options); });
  velocity.model.predict = [&](const auto&, const at::Tensor& latents, int64_t, int64_t) { return latents / 0.0; };
  expect_error(ErrorCode::kNonFinite, {"q"}, [&] { run(velocity, adapter_with(2), options); });
}

TEST(ModelMode, NamesAreTheLinearsModesAndTheOneThatSkips) {
  EXPECT_EQ(model_mode_names(), (std::vector<std::string>{"dense", "sa", "sa-nc", "sa-nc-lora", "sa-nc-lora-sl"}));
  for (const std::string& name : model_mode_names()) {
    const ModelMode mode = model_mode_from_name(name);
    EXPECT_EQ(mode.skips_layers, name == "sa-nc-lora-sl");
    EXPECT_EQ(mode.needs_adapter(), name.starts_with("sa-nc-lora"));
    EXPECT_EQ(linear_mode_name(mode.linear), name.substr(0, 10));
  }
  expect_error(ErrorCode::kInvalidArgument, {"sa-nc-lora-sl"}, [] { model_mode_from_name("fast"); });
}

TEST(ApplyAdapter, SkippingNeedsAChoice) {
  ToyModel toy;
  expect_error(ErrorCode::kInvalidArgument, {"rtlynx skip"}, [&] {
    apply_adapter(toy.linears(), adapter_with(0), "a", "Toy", "", model_mode_from_name("sa-nc-lora-sl"),
                  PlanPolicy::kSparse);
  });
}

}  // namespace
}  // namespace rtlynx::calibration
