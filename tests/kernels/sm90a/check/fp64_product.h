#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "device_memory.h"
#include "reference.h"

/// X W^T in fp64, made on the device, on the host.
namespace rtlynx::check {

struct Reference {
  std::vector<double> sum;
  std::vector<double> magnitude;  ///< the sum of |x w|
};

/// x [m, k], w [n, k]; both results [m, n].
inline Reference product_in_fp64(const test::HostMatrix& x, const test::HostMatrix& w) {
  const DeviceMatrix device_x(x), device_w(w);
  const auto count = static_cast<std::size_t>(x.rows * w.rows);
  const DeviceBytes sum(count * 8), magnitude(count * 8);
  reference_product(device_x.data(), device_w.data(), static_cast<int>(x.rows), static_cast<int>(w.rows),
                    static_cast<int>(x.cols), static_cast<double*>(sum.data()), static_cast<double*>(magnitude.data()));
  wait_for_device("reference product");
  Reference out{std::vector<double>(count), std::vector<double>(count)};
  require(cudaMemcpy(out.sum.data(), sum.data(), count * 8, cudaMemcpyDeviceToHost), "download");
  require(cudaMemcpy(out.magnitude.data(), magnitude.data(), count * 8, cudaMemcpyDeviceToHost), "download");
  return out;
}

/// The first element of T [m, rank] that is further from X L_A, over k, than the kernels' sums may be; "" if none. Sums
/// of integers are exact. Otherwise a class of k adds k / 128 + 1 times, and each addition of the tensor cores cuts
/// within two units of 2^-23 of the sum of magnitudes; then eight fp32 additions and the rounding to bf16.
inline std::string difference_of_t(const test::HostMatrix& t, const Reference& product, int64_t k, bool exact) {
  for (std::size_t i = 0; i < t.bits.size(); ++i) {
    const double value = float_from_bf16(t.bits[i]), expected = product.sum[i];
    const double bound =
        (static_cast<double>(k) / 128 + 9) * 0x1p-22 * product.magnitude[i] + 0x1.01p-8 * std::abs(expected);
    const bool good =
        exact ? t.bits[i] == bf16_from_float(static_cast<float>(expected)) : std::abs(value - expected) <= bound;
    if (good) continue;
    return "T: element " + std::to_string(i) + " of rows of " + std::to_string(t.cols) + " is " +
           std::to_string(value) + ", expected " + std::to_string(expected);
  }
  return "";
}

}  // namespace rtlynx::check
