// Calibrates the toy model into argv[1] and prints a line per progress report: a victim for the test that kills it.

#include <cstdio>
#include <exception>

#include "calibration/calibrate.h"
#include "tests/calibration/toy_model.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    rtlynx::testing::ToyModel model(48);
    rtlynx::calibration::CalibrationOptions options;
    options.output = argv[1];
    for (int i = 0; i < 40; ++i) options.prompts.push_back("prompt " + std::to_string(i));
    options.batch_size = 2;
    options.num_inference_steps = 3;
    options.rank = 8;
    options.save_interval_seconds = 0;
    options.model_class = "Toy";
    options.fingerprint = "0123456789abcdef";
    const rtlynx::calibration::RunPrompts run = [&](const auto& prompts, const auto& seeds, int64_t steps,
                                                    const auto& on_step) { model.run(prompts, seeds, steps, on_step); };
    rtlynx::calibration::calibrate(model.linears(), run, options,
                                   {.progress =
                                        [](const auto& progress) {
                                          std::printf("%d %lld\n", static_cast<int>(progress.stage),
                                                      static_cast<long long>(progress.done));
                                          std::fflush(stdout);
                                          return true;
                                        },
                                    .log = {}});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
