#include "calibration/units.h"

#include <fmt/format.h>

#include <cstring>

#include "io/json.h"
#include "rtlynx/status.h"

namespace rtlynx::calibration {
namespace {

[[noreturn]] void refuse(const std::string& origin, const std::string& what) {
  throw Error(ErrorCode::kOtherRun, fmt::format("{}: {}; remove the folder to start again", origin, what));
}

at::Tensor take(const TensorFile& file, const std::string& origin, const std::string& name, at::IntArrayRef shape,
                at::ScalarType type) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end() || found->second.sizes() != shape || found->second.scalar_type() != type) {
    refuse(origin, fmt::format("lacks the tensor {} of this run", name));
  }
  return found->second;
}

at::Tensor numbers(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

io::Config description_of(const TensorFile& file, const std::string& origin) {
  const auto found = file.metadata.find("unit");
  if (found == file.metadata.end()) refuse(origin, "has no description");
  return {io::parse_json(found->second, origin), origin};
}

}  // namespace

TensorFile sums_to_file(const Sums& sums, int64_t chunks) {
  TensorFile file;
  for (std::size_t g = 0; g < sums.inputs.size(); ++g) {
    const InputSums& input = sums.inputs[g];
    file.tensors[fmt::format("gram.{}", g)] = input.gram;
    file.tensors[fmt::format("cross.{}", g)] = input.cross;
    file.tensors[fmt::format("energy.{}", g)] = numbers({input.energy, input.kept});
    file.tensors[fmt::format("tokens.{}", g)] = at::scalar_tensor(input.tokens, at::kLong);
  }
  file.tensors["error_energy"] = numbers(sums.error_energy);
  file.metadata["unit"] = nlohmann::json({{"chunks", chunks}}).dump();
  return file;
}

int64_t sums_from_file(const TensorFile& file, const std::string& origin, Sums& sums) {
  for (std::size_t g = 0; g < sums.inputs.size(); ++g) {
    InputSums& input = sums.inputs[g];
    const auto shape = input.gram.sizes();
    input.gram.copy_(take(file, origin, fmt::format("gram.{}", g), shape, at::kDouble));
    input.cross.copy_(take(file, origin, fmt::format("cross.{}", g), shape, at::kDouble));
    const at::Tensor energy = take(file, origin, fmt::format("energy.{}", g), {2}, at::kDouble);
    input.energy = energy[0].item<double>();
    input.kept = energy[1].item<double>();
    input.tokens = take(file, origin, fmt::format("tokens.{}", g), {}, at::kLong).item<int64_t>();
  }
  const auto count = static_cast<int64_t>(sums.error_energy.size());
  const at::Tensor errors = take(file, origin, "error_energy", {count}, at::kDouble);
  for (std::size_t i = 0; i < sums.error_energy.size(); ++i) {
    sums.error_energy[i] = errors[static_cast<int64_t>(i)].item<double>();
  }
  return description_of(file, origin).integer("chunks", 0, int64_t{1} << 40);
}

TensorFile solved_to_file(const io::AdapterLinear& solved, int64_t rank) {
  TensorFile file;
  if (solved.sparse) {
    file.tensors["lora_a"] = bf16_tensor(solved.lora_a, solved.k, rank);
    file.tensors["lora_b"] = bf16_tensor(solved.lora_b, rank, solved.n);
  }
  file.tensors["figures"] = numbers({solved.energy_kept, solved.error_before, solved.error_after});
  file.metadata["unit"] = nlohmann::json({{"name", solved.name},
                                          {"k", solved.k},
                                          {"n", solved.n},
                                          {"rank", rank},
                                          {"sparse", solved.sparse},
                                          {"reason", solved.reason}})
                              .dump();
  return file;
}

io::AdapterLinear solved_from_file(const TensorFile& file, const std::string& origin, const std::string& name) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const io::Config description = description_of(file, origin);
  io::AdapterLinear solved;
  solved.name = description.text("name");
  if (solved.name != name) refuse(origin, fmt::format("is about {}, expected {}", solved.name, name));
  solved.k = description.integer("k", 1, kMost);
  solved.n = description.integer("n", 1, kMost);
  solved.sparse = description.boolean("sparse");
  solved.reason = description.text("reason");
  const at::Tensor figures = take(file, origin, "figures", {3}, at::kDouble);
  solved.energy_kept = figures[0].item<double>();
  solved.error_before = figures[1].item<double>();
  solved.error_after = figures[2].item<double>();
  if (solved.sparse) {
    const int64_t rank = description.integer("rank", 1, kMost);
    solved.lora_a = bf16_bytes(take(file, origin, "lora_a", {solved.k, rank}, at::kBFloat16));
    solved.lora_b = bf16_bytes(take(file, origin, "lora_b", {rank, solved.n}, at::kBFloat16));
  }
  return solved;
}

std::vector<std::byte> bf16_bytes(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kCPU, at::kBFloat16).contiguous();
  std::vector<std::byte> bytes(values.nbytes());
  std::memcpy(bytes.data(), values.const_data_ptr(), bytes.size());
  return bytes;
}

at::Tensor bf16_tensor(const std::vector<std::byte>& bytes, int64_t rows, int64_t cols) {
  at::Tensor values = at::empty({rows, cols}, at::kBFloat16);
  if (values.nbytes() != bytes.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} bytes for a bf16 matrix [{}, {}]", bytes.size(), rows, cols));
  }
  std::memcpy(values.mutable_data_ptr(), bytes.data(), bytes.size());
  return values;
}

}  // namespace rtlynx::calibration
