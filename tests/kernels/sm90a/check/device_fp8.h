#pragma once

#include <cstring>
#include <stdexcept>
#include <vector>

#include "../fp8_oracle.h"
#include "device_compressed.h"
#include "rtlynx/sm90a_fp8.h"

/// FP8 operands on the device.
namespace rtlynx::check {

/// Rows of e4m3, `padding` bytes further apart than they are long, with a factor each.
class DeviceFp8 {
 public:
  DeviceFp8(int64_t rows, int64_t cols, int64_t padding = 0)
      : rows_(rows),
        cols_(cols),
        stride_(cols + padding),
        codes_(static_cast<std::size_t>(rows * stride_)),
        factor_(static_cast<std::size_t>(rows) * 4) {}

  void upload(const test::HostFp8& host) {
    const auto width = static_cast<std::size_t>(cols_);
    require(cudaMemcpy2D(codes_.data(), static_cast<std::size_t>(stride_), host.codes.data(), width, width,
                         static_cast<std::size_t>(rows_), cudaMemcpyHostToDevice),
            "upload");
    factor_.upload(host.factor.data(), host.factor.size() * 4);
  }

  const void* data() const { return codes_.data(); }
  float* factor() const { return static_cast<float*>(factor_.data()); }
  MutableMatrixView mutable_view() const { return {codes_.data(), rows_, cols_, stride_, DType::kF8E4M3}; }
  sm90a::Fp8Weight weight() const { return {{codes_.data(), rows_, cols_, stride_, DType::kF8E4M3}, factor()}; }

  /// Throws if anything outside of the elements is no longer the poison it was.
  test::HostFp8 download() const {
    const std::vector<uint8_t> bytes = between_zones(codes_, "codes");
    const auto width = static_cast<std::size_t>(cols_), stride = static_cast<std::size_t>(stride_);
    test::HostFp8 host{rows_, cols_, std::vector<uint8_t>(static_cast<std::size_t>(rows_) * width),
                       as_floats(between_zones(factor_, "factor"))};
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows_); ++row) {
      std::memcpy(&host.codes[row * width], &bytes[row * stride], width);
      for (std::size_t i = row * stride + width; i < (row + 1) * stride; ++i) {
        if (bytes[i] != DeviceBytes::kPoison) throw std::runtime_error("codes: written between two rows");
      }
    }
    return host;
  }

 private:
  int64_t rows_, cols_, stride_;
  DeviceBytes codes_, factor_;
};

/// Activations compressed in FP8, with zones around blocks and factors.
struct DeviceCompressedFp8 {
  DeviceCompressedFp8(int64_t m, int64_t k)
      : blocks(static_cast<std::size_t>(sm90a::compressed_fp8_bytes(m, k).value())),
        factor(static_cast<std::size_t>(m) * 4),
        view{blocks.data(), static_cast<float*>(factor.data()), m, k} {}

  DeviceBytes blocks;
  DeviceBytes factor;
  sm90a::MutableCompressedFp8View view;
};

}  // namespace rtlynx::check
