// sm90a_check: the Hopper kernels on a GPU, checked (default) and timed (--bench). Needs a driver and, to time,
// cuBLASLt.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "bench.h"
#include "rtlynx/sm90a.h"
#include "verify.h"

namespace {

constexpr int kSkipped = 77;
constexpr const char* kUsage =
    "usage: sm90a_check [--quick] [--no-verify] [--bench RESULTS.jsonl] [--shapes SHAPES.txt]\n"
    "                   [--only SUBSTRING]... [--checks fp8]\n"
    "  checks the kernels (--quick: small shapes only; --checks fp8: those of FP8), then times them over SHAPES\n"
    "  (shapes/hopper.txt), all or those whose name contains a SUBSTRING\n"
    "  exit: 0 good, 1 failed, 2 wrong use, 77 no Hopper GPU\n";

struct Arguments {
  bool quick = false;
  bool verify = true;
  std::string results;
  std::string shapes = "shapes/hopper.txt";
  std::vector<std::string> only;
  bool only_fp8 = false;
};

bool parse(int count, char** words, Arguments& arguments) {
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--quick") {
      arguments.quick = true;
    } else if (word == "--no-verify") {
      arguments.verify = false;
    } else if ((word == "--bench" || word == "--shapes") && i + 1 < count) {
      (word == "--bench" ? arguments.results : arguments.shapes) = words[++i];
    } else if (word == "--only" && i + 1 < count) {
      arguments.only.emplace_back(words[++i]);
    } else if (word == "--checks" && i + 1 < count && std::strcmp(words[i + 1], "fp8") == 0) {
      arguments.only_fp8 = true;
      ++i;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int count, char** words) {
  Arguments arguments;
  if (!parse(count, words, arguments)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  if (const rtlynx::Status status = rtlynx::sm90a::check_device(); !status.ok()) {
    std::printf("skipped: %s\n", status.to_string().c_str());
    return kSkipped;
  }
  try {
    cudaDeviceProp properties{};
    cudaGetDeviceProperties(&properties, 0);
    std::printf("%s, %d multiprocessors, L2 %d MiB\n", properties.name, properties.multiProcessorCount,
                properties.l2CacheSize >> 20);
    const auto verify = arguments.only_fp8 ? rtlynx::check::verify_fp8 : rtlynx::check::verify;
    const int failures = arguments.verify ? verify(arguments.quick) : 0;
    // Timings of kernels with a known fault still tell something; the exit code tells of the fault.
    if (!arguments.results.empty()) rtlynx::check::bench(arguments.shapes, arguments.results, arguments.only);
    if (failures != 0) return 1;
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
  return 0;
}
