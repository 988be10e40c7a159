// score_pictures SCORER IN OUT: reads "image" [B, 3, H, W] from IN and writes what the scorer sees, its features'
// moments and their Frechet distance to the scorer's reference into OUT, for comparison with Python.

#include <cstdio>
#include <exception>

#include "evaluation/metrics.h"
#include "evaluation/scorer.h"
#include "linear/tensor_file.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    const auto scorer = rtlynx::evaluation::Scorer::load(argv[1], at::kCPU);
    const rtlynx::TensorFile input = rtlynx::read_tensor_file(argv[2]);
    const auto readings = scorer.read(input.tensors.at("image"));
    at::Tensor labels = at::empty({0}, at::kLong);
    for (const auto& row : readings.labels) {
      labels = at::cat({labels, at::tensor(at::ArrayRef<int64_t>(row.data(), row.size()), at::kLong)});
    }
    const auto moments = rtlynx::evaluation::moments(readings.features);
    const double distance = rtlynx::evaluation::frechet_distance(moments, scorer.reference());
    rtlynx::write_tensor_file(argv[3], {{{"features", readings.features},
                                         {"labels", labels.view({readings.features.size(0), -1})},
                                         {"mean", moments.mean},
                                         {"covariance", moments.covariance},
                                         {"distance", at::scalar_tensor(distance, at::kDouble)}},
                                        {}});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
