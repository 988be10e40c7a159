#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "pipeline/torch_errors.h"
#include "rtlynx/status.h"
#include "verbs.h"

namespace {

using rtlynx::pipeline::first_line;

constexpr int kFailed = 1;
constexpr int kWrongUse = 2;

int report(const rtlynx::Error& error) {
  fmt::print(stderr, "rtlynx: {}\n", error.what());
  const bool is_wrong_use =
      error.code() == rtlynx::ErrorCode::kInvalidArgument || error.code() == rtlynx::ErrorCode::kBadPrompt;
  return is_wrong_use ? kWrongUse : kFailed;
}

/// libgomp's threads spin for milliseconds before they sleep. Where other processes want the cores too, each waits for
/// threads that are not running: 0.5 steps/s instead of 7.5 were seen. A spin of some 30 us costs a quiet machine
/// nothing that could be measured. libgomp reads its settings while it is loaded, hence the second start.
void shorten_openmp_spin(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "10000", 1);
  execv("/proc/self/exe", argv);  // where this fails, the default has to do
}

/// As a person would type it again: the program by its bare name, words with spaces quoted.
std::string command_line(int argc, char** argv) {
  std::string text = "rtlynx";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    text += word.find(' ') == std::string::npos ? " " + word : " \"" + word + "\"";
  }
  return text;
}

int run(int argc, char** argv) {
  CLI::App app{
      "RT-Lynx: diffusion transformers on linears whose activations are pruned 2:4 on the fly.\n\n"
      "  rtlynx generate -m models/mini-flux -p \"a fox above a red apple on a striped blue background\" -o fox.png\n"
      "  rtlynx inspect models/mini-flux\n",
      "rtlynx"};
  app.set_version_flag("--version", RTLYNX_VERSION);
  app.require_subcommand(1);
  rtlynx::cli::add_generate(app);
  rtlynx::cli::add_calibrate(app);
  rtlynx::cli::add_skip(app);
  rtlynx::cli::add_evaluate(app, command_line(argc, argv));
  rtlynx::cli::add_inspect(app);
  rtlynx::cli::add_bench(app);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongUse;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  shorten_openmp_spin(argv);
  try {
    return run(argc, argv);
  } catch (const rtlynx::Error& error) {
    return report(error);
  } catch (const c10::OutOfMemoryError& error) {
    return report(rtlynx::Error(rtlynx::ErrorCode::kOutOfMemory, first_line(error.what_without_backtrace())));
  } catch (const c10::Error& error) {
    return report(rtlynx::Error(rtlynx::ErrorCode::kInternal, first_line(error.what_without_backtrace())));
  } catch (const std::bad_alloc&) {
    return report(rtlynx::Error(rtlynx::ErrorCode::kOutOfMemory, "the machine refused more memory"));
  } catch (const std::exception& error) {
    return report(rtlynx::Error(rtlynx::ErrorCode::kInternal, first_line(error.what())));
  }
}
