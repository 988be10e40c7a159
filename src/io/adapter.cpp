#include "io/adapter.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>

#include "core/alloc.h"
#include "io/json.h"
#include "io/safetensors_header.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

using nlohmann::json;

constexpr std::string_view kMetadataKey = "rtlynx";
constexpr int64_t kMaxRank = 4096;
constexpr int64_t kMaxDimension = int64_t{1} << 24;
// FLUX.1-dev's adapter of rank 64 has 0.6 GB; a file with holes can claim any size.
constexpr uint64_t kMaxFactorsBytes = uint64_t{4} << 30;
constexpr std::size_t kMaxLinears = 65'536;
constexpr std::size_t kMaxText = 4096;
constexpr std::size_t kMaxSettings = 256;
constexpr double kMaxError = 1e30;

struct Factor {
  std::string_view suffix;
  int64_t rows;
  int64_t cols;
  const std::vector<std::byte>* bytes;
};

std::array<Factor, 2> factors_of(const AdapterLinear& linear, int64_t rank) {
  return {Factor{".lora_a", linear.k, rank, &linear.lora_a}, Factor{".lora_b", rank, linear.n, &linear.lora_b}};
}

[[noreturn]] void fail(ErrorCode code, const std::string& origin, std::string_view what) {
  throw Error(code, fmt::format("{}: {}", origin, what));
}

void check_text(const std::string& origin, std::string_view what, std::string_view text) {
  if (text.empty() || text.size() > kMaxText || !is_utf8(text)) {
    fail(ErrorCode::kAdapterFormat, origin,
         fmt::format("{} {}: expected 1 to {} bytes of UTF-8", what, quote(text), kMaxText));
  }
}

void check_number(const std::string& origin, std::string_view what, double number, double max) {
  if (!(number >= 0 && number <= max)) {
    fail(ErrorCode::kAdapterFormat, origin,
         fmt::format("{}: expected a number from 0 to {}, got {}", what, max, number));
  }
}

/// NaN and Inf have all 8 exponent bits set.
void check_finite(const std::string& where, const std::vector<std::byte>& bf16) {
  for (std::size_t i = 0; i + 1 < bf16.size(); i += 2) {
    const bool low_bit = (bf16[i] & std::byte{0x80}) != std::byte{0};
    if (low_bit && (bf16[i + 1] & std::byte{0x7F}) == std::byte{0x7F}) {
      fail(ErrorCode::kNonFinite, where, fmt::format("element {} is NaN or Inf", i / 2));
    }
  }
}

void check_factors(const AdapterLinear& linear, int64_t rank, const std::string& origin) {
  for (const Factor& factor : factors_of(linear, rank)) {
    const std::string where =
        fmt::format("{}: tensor {}", origin, quote(fmt::format("{}{}", linear.name, factor.suffix)));
    // Both are at most 2^24, so the product fits.
    const bool expected = linear.sparse || linear.has_factors();
    const auto wanted = static_cast<std::size_t>(expected ? factor.rows * factor.cols * 2 : 0);
    if (factor.bytes->size() != wanted) {
      fail(ErrorCode::kAdapterTensors, where, fmt::format("expected {} bytes, got {}", wanted, factor.bytes->size()));
    }
    check_finite(where, *factor.bytes);
  }
}

/// The description, without the factors.
void check_linear(const AdapterLinear& linear, int64_t rank, const std::string& origin) {
  const std::string where = fmt::format("{}: linear {}", origin, quote(linear.name));
  check_tensor_name(linear.name, origin);
  for (const int64_t dimension : {linear.k, linear.n}) {
    if (dimension < 1 || dimension > kMaxDimension) {
      fail(ErrorCode::kAdapterFormat, where,
           fmt::format("k {}, n {}: expected 1 to {}", linear.k, linear.n, kMaxDimension));
    }
  }
  if ((linear.sparse || linear.has_factors()) && rank > std::min(linear.k, linear.n)) {
    fail(ErrorCode::kAdapterRank, where, fmt::format("rank {} passes k {} or n {}", rank, linear.k, linear.n));
  }
  check_text(where, "reason", linear.reason);
  check_number(where, "energy_kept", linear.energy_kept, 1.0);
  check_number(where, "error_before", linear.error_before, kMaxError);
  check_number(where, "error_after", linear.error_after, kMaxError);
}

void check_description(const Adapter& adapter, const std::string& origin) {
  check_text(origin, "model_class", adapter.model_class);
  check_text(origin, "method", adapter.method);
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (adapter.fingerprint.size() != 16 || !std::ranges::all_of(adapter.fingerprint, is_hex)) {
    fail(ErrorCode::kAdapterFormat, origin,
         fmt::format("fingerprint {}: expected 16 hexadecimal digits", quote(adapter.fingerprint)));
  }
  if (adapter.rank < 1 || adapter.rank > kMaxRank) {
    fail(ErrorCode::kAdapterRank, origin, fmt::format("rank {}: expected 1 to {}", adapter.rank, kMaxRank));
  }
  if (!adapter.calibration.is_object() || adapter.calibration.size() > kMaxSettings ||
      std::ranges::any_of(adapter.calibration, [](const json& value) { return value.is_structured(); })) {
    fail(ErrorCode::kAdapterFormat, origin,
         fmt::format("calibration: expected an object of at most {} scalars", kMaxSettings));
  }
  if (adapter.linears.size() > kMaxLinears) {
    fail(ErrorCode::kAdapterFormat, origin,
         fmt::format("{} linears, at most {} allowed", adapter.linears.size(), kMaxLinears));
  }
  std::set<std::string_view> names;
  for (const AdapterLinear& linear : adapter.linears) {
    check_linear(linear, adapter.rank, origin);
    if (!names.insert(linear.name).second) {
      fail(ErrorCode::kAdapterFormat, origin, fmt::format("linear {} stands there twice", quote(linear.name)));
    }
  }
}

json describe(const Adapter& adapter) {
  json linears = json::array();
  for (const AdapterLinear& linear : adapter.linears) {
    linears.push_back({{"name", linear.name},
                       {"k", linear.k},
                       {"n", linear.n},
                       {"decision", linear.sparse ? "sparse" : "dense"},
                       {"reason", linear.reason},
                       {"energy_kept", linear.energy_kept},
                       {"error_before", linear.error_before},
                       {"error_after", linear.error_after}});
  }
  const bool keeps_factors = std::ranges::any_of(
      adapter.linears, [](const AdapterLinear& linear) { return !linear.sparse && linear.has_factors(); });
  return {{"format_version", keeps_factors ? kAdapterVersion : 1},
          {"model_class", adapter.model_class},
          {"fingerprint", adapter.fingerprint},
          {"method", adapter.method},
          {"rank", adapter.rank},
          {"calibration", adapter.calibration},
          {"linears", std::move(linears)}};
}

AdapterLinear parse_linear(const json& value, const std::string& origin) {
  const Config entry(value, origin);
  AdapterLinear linear;
  linear.name = entry.text("name");
  linear.k = entry.integer("k", 1, kMaxDimension);
  linear.n = entry.integer("n", 1, kMaxDimension);
  const std::string decision = entry.text("decision");
  if (decision != "sparse" && decision != "dense") {
    fail(ErrorCode::kAdapterFormat, origin, fmt::format("decision {}: expected sparse or dense", quote(decision)));
  }
  linear.sparse = decision == "sparse";
  linear.reason = entry.text("reason");
  linear.energy_kept = entry.number("energy_kept", 0, 1);
  linear.error_before = entry.number("error_before", 0, kMaxError);
  linear.error_after = entry.number("error_after", 0, kMaxError);
  return linear;
}

int64_t version_of(const Config& description, const std::string& origin) {
  const int64_t version = description.integer("format_version", 1, std::numeric_limits<int64_t>::max());
  if (version > kAdapterVersion) {
    fail(ErrorCode::kAdapterVersion, origin,
         fmt::format("format_version {}, this RT-Lynx reads up to {}", version, kAdapterVersion));
  }
  return version;
}

Adapter parse_fields(const Config& description, const std::string& origin) {
  Adapter adapter;
  adapter.model_class = description.text("model_class");
  adapter.fingerprint = description.text("fingerprint");
  adapter.method = description.text("method");
  adapter.rank = description.integer("rank", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  adapter.calibration = description.json().value("calibration", json());
  const json linears = description.json().value("linears", json());
  if (!linears.is_array() || linears.size() > kMaxLinears) {
    fail(ErrorCode::kAdapterFormat, origin, fmt::format("linears: expected an array of at most {}", kMaxLinears));
  }
  for (std::size_t i = 0; i < linears.size(); ++i) {
    adapter.linears.push_back(parse_linear(linears[i], fmt::format("{}: linears[{}]", origin, i)));
  }
  return adapter;
}

/// The adapter without its factors, and its format's version.
std::pair<Adapter, int64_t> parse_description(const SafetensorsFile& file, const std::string& origin) {
  const auto found = file.metadata().find(std::string(kMetadataKey));
  if (found == file.metadata().end()) {
    fail(ErrorCode::kAdapterFormat, origin,
         fmt::format("no metadata {}: not an adapter of RT-Lynx", quote(kMetadataKey)));
  }
  try {
    const std::string where = fmt::format("{}: metadata {}", origin, quote(kMetadataKey));
    const Config description(parse_json(found->second, where), where);
    // The version comes first: what else a newer format holds is not known here.
    const int64_t version = version_of(description, where);
    return {parse_fields(description, where), version};
  } catch (const Error& error) {
    // One code for a malformed description, whether its JSON or a field is at fault.
    const bool malformed = error.code() == ErrorCode::kBadJson || error.code() == ErrorCode::kBadConfig;
    throw Error(malformed ? ErrorCode::kAdapterFormat : error.code(), error.status().message());
  }
}

std::vector<std::byte> read_factor(const SafetensorsFile& file, const std::string& name, int64_t rows, int64_t cols) {
  const std::string where = fmt::format("{}: tensor {}", file.path().string(), quote(name));
  const TensorInfo* tensor = file.find(name);
  if (tensor == nullptr) fail(ErrorCode::kAdapterTensors, where, "is missing");
  if (tensor->dtype != DType::kBF16) {
    fail(ErrorCode::kTensorDType, where, fmt::format("expected BF16, got {}", dtype_name(tensor->dtype)));
  }
  if (tensor->shape != std::vector<int64_t>{rows, cols}) {
    const bool other_rank = tensor->shape.size() == 2 && (tensor->shape[0] == rows || tensor->shape[1] == cols);
    fail(other_rank ? ErrorCode::kAdapterRank : ErrorCode::kAdapterTensors, where,
         fmt::format("expected shape [{}, {}], got {}", rows, cols, json(tensor->shape).dump()));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor->end - tensor->begin));
  file.read(*tensor, bytes);
  return bytes;
}

void read_factors(const SafetensorsFile& file, int64_t version, Adapter& adapter) {
  const std::string origin = file.path().string();
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : file.tensors()) bytes += tensor.end - tensor.begin;
  if (bytes > kMaxFactorsBytes) {
    fail(ErrorCode::kOutOfMemory, origin,
         fmt::format("{} bytes of factors, at most {} are read", bytes, kMaxFactorsBytes));
  }
  std::size_t factors = 0;
  for (AdapterLinear& linear : adapter.linears) {
    const bool keeps_factors = version > 1 && file.find(linear.name + ".lora_a") != nullptr;
    if (!linear.sparse && !keeps_factors) continue;
    linear.lora_a = read_factor(file, linear.name + ".lora_a", linear.k, adapter.rank);
    linear.lora_b = read_factor(file, linear.name + ".lora_b", adapter.rank, linear.n);
    if (!linear.sparse) check_linear(linear, adapter.rank, origin);  // its rank counts only now
    check_factors(linear, adapter.rank, origin);
    factors += 2;
  }
  if (factors != file.tensors().size()) {
    fail(ErrorCode::kAdapterTensors, origin,
         fmt::format("{} tensors, the linears call for {}", file.tensors().size(), factors));
  }
}

void write_checked(const std::filesystem::path& path, const Adapter& adapter) {
  const std::string origin = path.string();
  check_description(adapter, origin);
  std::vector<TensorToWrite> tensors;
  for (const AdapterLinear& linear : adapter.linears) {
    check_factors(linear, adapter.rank, origin);
    if (!linear.has_factors()) continue;
    for (const Factor& factor : factors_of(linear, adapter.rank)) {
      tensors.push_back(
          {fmt::format("{}{}", linear.name, factor.suffix), DType::kBF16, {factor.rows, factor.cols}, *factor.bytes});
    }
  }
  write_safetensors(path, std::move(tensors), {{std::string(kMetadataKey), describe(adapter).dump()}});
}

}  // namespace

std::string adapter_file_name(int64_t rank, std::string_view model) {
  return fmt::format("rtlynx-r{}-{}.safetensors", rank, model);
}

void write_adapter(const std::filesystem::path& path, const Adapter& adapter) {
  or_out_of_memory(path.string(), [&] { write_checked(path, adapter); });
}

Adapter read_adapter(const std::filesystem::path& path) {
  return or_out_of_memory(path.string(), [&] {
    const SafetensorsFile file = SafetensorsFile::open(path);
    auto [adapter, version] = parse_description(file, path.string());
    check_description(adapter, path.string());
    read_factors(file, version, adapter);
    return std::move(adapter);
  });
}

void check_adapter(const Adapter& adapter, const std::string& origin, std::string_view model_class,
                   std::string_view fingerprint, std::span<const LinearShape> linears) {
  constexpr std::size_t kListed = 5;
  std::vector<std::string> differences;
  if (adapter.model_class != model_class) {
    differences.push_back(
        fmt::format("made for class {}, the model is {}", quote(adapter.model_class), quote(model_class)));
  }
  if (!fingerprint.empty() && adapter.fingerprint != fingerprint) {
    differences.push_back(fmt::format("made for weights {}, these are {}", adapter.fingerprint, fingerprint));
  }
  std::map<std::string_view, const LinearShape*> by_name;
  for (const LinearShape& linear : linears) by_name.emplace(linear.name, &linear);
  for (const AdapterLinear& linear : adapter.linears) {
    const auto found = by_name.find(linear.name);
    if (found == by_name.end()) {
      differences.push_back(fmt::format("the model has no linear {}", quote(linear.name)));
    } else if (found->second->k != linear.k || found->second->n != linear.n) {
      differences.push_back(fmt::format("linear {} has k {}, n {}, expected {}, {}", quote(linear.name),
                                        found->second->k, found->second->n, linear.k, linear.n));
    }
  }
  if (differences.empty()) return;
  std::string text;
  for (std::size_t i = 0; i < std::min(kListed, differences.size()); ++i) text += (i == 0 ? "" : "; ") + differences[i];
  if (differences.size() > kListed) text += fmt::format("; and {} more", differences.size() - kListed);
  fail(ErrorCode::kAdapterMismatch, origin, text);
}

}  // namespace rtlynx::io
