#include "io/adapter.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <limits>

#include "io/json.h"
#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx::io {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::FaultyFileSystem;
using testing::slurp;
using testing::TemporaryFolder;

constexpr std::string_view kFingerprint = "0123456789abcdef";

std::vector<std::byte> some_bf16(int64_t elements, uint8_t seed) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(elements * 2));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i * 7 + seed) % 60);
  return bytes;
}

Adapter good_adapter() {
  Adapter adapter;
  adapter.model_class = "FluxTransformer2DModel";
  adapter.fingerprint = kFingerprint;
  adapter.rank = 2;
  adapter.calibration = {{"prompts", 16}, {"steps", 4}, {"seed", 0}, {"ridge", 1e-4}, {"dtype", "fp32"}};
  adapter.linears.push_back({"blocks.1.to_q", 8, 6, true, "pays from 256 tokens on", 0.9375, 0.0625, 0.015625,
                             some_bf16(16, 1), some_bf16(12, 2)});
  adapter.linears.push_back({"blocks.0.to_q", 8, 4, false, "error after 0.31", 0.5, 0.5, 0.31, {}, {}});
  adapter.linears.push_back({"blocks.0.to_k", 4, 6, true, "-", 1, 0, 0, some_bf16(8, 3), some_bf16(12, 4)});
  return adapter;
}

TEST(Adapter, RoundTrips) {
  const TemporaryFolder folder;
  const auto path = folder / adapter_file_name(2, "tiny");
  EXPECT_EQ(path.filename(), "rtlynx-r2-tiny.safetensors");
  const Adapter written = good_adapter();
  write_adapter(path, written);
  const Adapter read = read_adapter(path);
  EXPECT_EQ(read.model_class, written.model_class);
  EXPECT_EQ(read.fingerprint, written.fingerprint);
  EXPECT_EQ(read.method, "closed-form");
  EXPECT_EQ(read.rank, 2);
  EXPECT_EQ(read.calibration, written.calibration);
  ASSERT_EQ(read.linears.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const AdapterLinear& a = written.linears[i];
    const AdapterLinear& b = read.linears[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.k, b.k);
    EXPECT_EQ(a.n, b.n);
    EXPECT_EQ(a.sparse, b.sparse);
    EXPECT_EQ(a.reason, b.reason);
    EXPECT_EQ(a.energy_kept, b.energy_kept);
    EXPECT_EQ(a.error_before, b.error_before);
    EXPECT_EQ(a.error_after, b.error_after);
    EXPECT_EQ(a.lora_a, b.lora_a);
    EXPECT_EQ(a.lora_b, b.lora_b);
  }
  write_adapter(folder / "again", read);
  EXPECT_EQ(slurp(folder / "again"), slurp(path));
}

TEST(Adapter, DenseLinearsMayKeepTheirFactorsInVersion2) {
  const TemporaryFolder folder;
  Adapter written = good_adapter();
  const auto version_of = [&](const std::string& name) {
    write_adapter(folder / name, written);
    const SafetensorsFile file = SafetensorsFile::open(folder / name);
    return parse_json(file.metadata().at("rtlynx"), "rtlynx").at("format_version").get<int>();
  };
  EXPECT_EQ(version_of("one"), 1) << "readers of version 1 take what they understand";
  written.linears[0].sparse = false;
  EXPECT_EQ(version_of("two"), 2);
  const Adapter read = read_adapter(folder / "two");
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(read.linears[i].sparse, i == 2);
    EXPECT_EQ(read.linears[i].has_factors(), i != 1);
    EXPECT_EQ(read.linears[i].lora_a, written.linears[i].lora_a);
    EXPECT_EQ(read.linears[i].lora_b, written.linears[i].lora_b);
  }
  write_adapter(folder / "again", read);
  EXPECT_EQ(slurp(folder / "again"), slurp(folder / "two"));

  written.linears[0].lora_b.clear();
  expect_error(ErrorCode::kAdapterTensors, {"blocks.1.to_q.lora_b"}, [&] { write_adapter(folder / "c", written); });
  written = good_adapter();
  written.linears[0].sparse = false;
  written.rank = 7;
  expect_error(ErrorCode::kAdapterRank, {"rank 7"}, [&] { write_adapter(folder / "c", written); });
}

TEST(Adapter, WriterRefusesWhatTheReaderWould) {
  const TemporaryFolder folder;
  const auto path = folder / "a.safetensors";
  const auto refused = [&](ErrorCode code, std::string_view mention, auto&& spoil) {
    Adapter adapter = good_adapter();
    spoil(adapter);
    expect_error(code, {path.string(), mention}, [&] { write_adapter(path, adapter); });
  };
  const std::string to_q = "\"blocks.1.to_q\"";
  refused(ErrorCode::kAdapterRank, "rank 0", [](Adapter& a) { a.rank = 0; });
  refused(ErrorCode::kAdapterRank, "rank -1", [](Adapter& a) { a.rank = -1; });
  refused(ErrorCode::kAdapterRank, "rank 4097", [](Adapter& a) { a.rank = 4097; });
  refused(ErrorCode::kAdapterRank, to_q, [](Adapter& a) { a.rank = 7; });
  refused(ErrorCode::kAdapterTensors, "blocks.1.to_q.lora_a", [](Adapter& a) { a.linears[0].lora_a.pop_back(); });
  refused(ErrorCode::kAdapterTensors, "blocks.0.to_q.lora_a", [](Adapter& a) { a.linears[1].lora_b.resize(16); });
  refused(ErrorCode::kAdapterFormat, "twice", [](Adapter& a) { a.linears[1].name = a.linears[0].name; });
  refused(ErrorCode::kAdapterFormat, "fingerprint", [](Adapter& a) { a.fingerprint = "0123456789ABCDEF"; });
  refused(ErrorCode::kAdapterFormat, "model_class", [](Adapter& a) { a.model_class = ""; });
  refused(ErrorCode::kAdapterFormat, "reason", [](Adapter& a) { a.linears[0].reason = std::string(5000, 'x'); });
  refused(ErrorCode::kAdapterFormat, "reason", [](Adapter& a) { a.linears[0].reason = "\xFF"; });
  refused(ErrorCode::kAdapterFormat, "calibration", [](Adapter& a) { a.calibration["x"] = json::array(); });
  refused(ErrorCode::kAdapterFormat, "k 0", [](Adapter& a) { a.linears[0].k = 0; });
  refused(ErrorCode::kSafetensorsName, "control", [](Adapter& a) { a.linears[0].name = "a\nb"; });
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refused(ErrorCode::kAdapterFormat, "energy_kept", [&](Adapter& a) { a.linears[0].energy_kept = nan; });
  refused(ErrorCode::kAdapterFormat, "energy_kept", [](Adapter& a) { a.linears[0].energy_kept = 1.5; });
  refused(ErrorCode::kAdapterFormat, "error_after",
          [](Adapter& a) { a.linears[0].error_after = std::numeric_limits<double>::infinity(); });
  for (const uint8_t low : {uint8_t{0x80}, uint8_t{0xC0}}) {  // Inf, NaN
    refused(ErrorCode::kNonFinite, "element 3", [&](Adapter& a) {
      a.linears[0].lora_a[6] = std::byte{low};
      a.linears[0].lora_a[7] = std::byte{0xFF};
    });
  }
  EXPECT_EQ(folder.count(), 0u);
}

/// Takes a good file apart, lets the test spoil its description or its tensors, and puts it together again.
class Spoiled {
 public:
  Spoiled() {
    path = folder / "a.safetensors";
    write_adapter(path, good_adapter());
    const SafetensorsFile file = SafetensorsFile::open(path);
    description = parse_json(file.metadata().at("rtlynx"), "rtlynx");
    for (const TensorInfo& info : file.tensors()) {
      contents.emplace_back(static_cast<std::size_t>(info.end - info.begin));
      file.read(info, contents.back());
      tensors.push_back({info.name, info.dtype, info.shape, contents.back()});
    }
  }
  TensorToWrite& tensor(std::string_view name) {
    for (TensorToWrite& candidate : tensors) {
      if (candidate.name == name) return candidate;
    }
    throw std::out_of_range("no such tensor");
  }
  void expect(ErrorCode code, std::string_view mention) {
    write_safetensors(path, tensors, {{"rtlynx", text.empty() ? description.dump() : text}});
    expect_error(code, {path.string(), mention}, [&] { read_adapter(path); });
  }

  TemporaryFolder folder;
  std::filesystem::path path;
  json description;
  std::string text;  ///< in place of the description where it is set
  std::vector<std::vector<std::byte>> contents;
  std::vector<TensorToWrite> tensors;
};

TEST(Adapter, ReaderRefusesSpoiledDescriptions) {
  const auto refused = [](ErrorCode code, std::string_view mention, auto&& spoil) {
    Spoiled spoiled;
    spoil(spoiled.description);
    spoiled.expect(code, mention);
  };
  refused(ErrorCode::kAdapterVersion, "format_version 3", [](json& d) { d = {{"format_version", 3}}; });
  refused(ErrorCode::kAdapterFormat, "format_version", [](json& d) { d["format_version"] = 0; });
  refused(ErrorCode::kAdapterFormat, "format_version", [](json& d) { d.erase("format_version"); });
  refused(ErrorCode::kAdapterFormat, "object", [](json& d) { d = json::array(); });
  refused(ErrorCode::kAdapterRank, "rank 0", [](json& d) { d["rank"] = 0; });
  refused(ErrorCode::kAdapterFormat, "rank", [](json& d) { d["rank"] = "2"; });
  refused(ErrorCode::kAdapterFormat, "model_class", [](json& d) { d["model_class"] = nullptr; });
  refused(ErrorCode::kAdapterFormat, "calibration", [](json& d) { d.erase("calibration"); });
  refused(ErrorCode::kAdapterFormat, "calibration", [](json& d) { d["calibration"]["deep"] = {{"a", 1}}; });
  refused(ErrorCode::kAdapterFormat, "linears", [](json& d) { d["linears"] = 3; });
  refused(ErrorCode::kAdapterFormat, "linears[0]", [](json& d) { d["linears"][0] = 3; });
  refused(ErrorCode::kAdapterFormat, "maybe", [](json& d) { d["linears"][1]["decision"] = "maybe"; });
  refused(ErrorCode::kAdapterFormat, "\"k\"", [](json& d) { d["linears"][1]["k"] = -8; });
  refused(ErrorCode::kAdapterFormat, "twice", [](json& d) { d["linears"].push_back(d["linears"][0]); });
  refused(ErrorCode::kAdapterTensors, "blocks.0.to_q.lora_a", [](json& d) { d["linears"][1]["decision"] = "sparse"; });
  refused(ErrorCode::kAdapterTensors, "4 tensors", [](json& d) { d["linears"][0]["decision"] = "dense"; });
  refused(ErrorCode::kAdapterTensors, "4 tensors", [](json& d) { d["format_version"] = 2, d["linears"].erase(0); });
  refused(ErrorCode::kAdapterRank, "blocks.0.to_k.lora_a", [](json& d) { d["rank"] = 1, d["linears"].erase(0); });
  Spoiled no_json;
  no_json.text = "{\"rank\":";
  no_json.expect(ErrorCode::kAdapterFormat, "syntax error");
}

TEST(Adapter, ReaderRefusesSpoiledTensors) {
  Spoiled missing;
  missing.tensors.erase(missing.tensors.begin());
  missing.expect(ErrorCode::kAdapterTensors, "is missing");

  Spoiled transposed;
  transposed.tensor("blocks.0.to_k.lora_b").shape = {6, 2};
  transposed.expect(ErrorCode::kAdapterTensors, "expected shape [2, 6], got [6,2]");

  Spoiled other_rank;  // lora_b of rank 1 beside lora_a of rank 2
  other_rank.tensor("blocks.0.to_k.lora_b").shape = {1, 6};
  other_rank.tensor("blocks.0.to_k.lora_b").bytes = other_rank.tensor("blocks.0.to_k.lora_b").bytes.first(12);
  other_rank.expect(ErrorCode::kAdapterRank, "blocks.0.to_k.lora_b");

  Spoiled type;
  type.tensor("blocks.0.to_k.lora_b").dtype = DType::kF16;
  type.expect(ErrorCode::kTensorDType, "expected BF16, got F16");

  Spoiled nan;
  nan.contents.back()[1] = std::byte{0x7F};
  nan.contents.back()[0] = std::byte{0xC0};
  nan.expect(ErrorCode::kNonFinite, "element 0");

  Spoiled more;
  more.tensors.push_back({"blocks.9.lora_a", DType::kBF16, {1}, std::span(more.contents[0]).first(2)});
  more.expect(ErrorCode::kAdapterTensors, "5 tensors");

  const TemporaryFolder folder;
  write_safetensors(folder / "plain.safetensors", {}, {{"format", "pt"}});
  expect_error(ErrorCode::kAdapterFormat, {"plain.safetensors", "not an adapter"},
               [&] { read_adapter(folder / "plain.safetensors"); });
  expect_error(ErrorCode::kPickleRefused, {"a.pt"}, [&] { read_adapter(folder.write("a.pt", "x")); });
}

// 8 TB of factors, none of them on the disk.
TEST(Adapter, HolesOnDiskCostNoMemory) {
  const TemporaryFolder folder;
  const auto path = folder / "a.safetensors";
  Adapter adapter = good_adapter();
  adapter.linears.clear();
  write_adapter(path, adapter);
  json description = parse_json(SafetensorsFile::open(path).metadata().at("rtlynx"), "rtlynx");
  description["rank"] = 4096;
  description["linears"] = {{{"name", "a"},
                             {"k", 1 << 24},
                             {"n", 1 << 24},
                             {"decision", "sparse"},
                             {"reason", "-"},
                             {"energy_kept", 1},
                             {"error_before", 0},
                             {"error_after", 0}}};
  constexpr uint64_t kBytes = uint64_t{4096} << 25;
  const json header = {
      {"__metadata__", {{"rtlynx", description.dump()}}},
      {"a.lora_a", {{"dtype", "BF16"}, {"shape", {1 << 24, 4096}}, {"data_offsets", {uint64_t{0}, kBytes}}}},
      {"a.lora_b", {{"dtype", "BF16"}, {"shape", {4096, 1 << 24}}, {"data_offsets", {kBytes, 2 * kBytes}}}}};
  const std::string text = header.dump();
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  folder.write("a.safetensors", length + text);
  std::filesystem::resize_file(path, 8 + text.size() + 2 * kBytes);
  expect_error(ErrorCode::kOutOfMemory, {path.string(), "bytes of factors"}, [&] { read_adapter(path); });
}

TEST(Adapter, EveryFailingCallLeavesOldOrNew) {
  bool fired = true;
  for (int64_t k = 1; fired; ++k) {
    const TemporaryFolder folder;
    const auto path = folder.write("a.safetensors", "old");
    FaultyFileSystem faulty({.at_call = k, .error = EIO});
    {
      const ScopedFileSystem scope(faulty);
      try {
        write_adapter(path, good_adapter());
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kWriteFailed);
      }
    }
    fired = faulty.fired();
    EXPECT_EQ(folder.count(), 1u);
    EXPECT_TRUE(slurp(path) == "old" || read_adapter(path).linears.size() == 3);
    ASSERT_LT(k, 50);
  }
}

TEST(CheckAdapter, ListsTheFirstDifferences) {
  const Adapter adapter = good_adapter();
  std::vector<LinearShape> linears = {
      {"blocks.0.to_q", 8, 4}, {"blocks.0.to_k", 4, 6}, {"blocks.1.to_q", 8, 6}, {"other", 1, 1}};
  const auto check = [&](std::string_view model_class, std::string_view fingerprint) {
    check_adapter(adapter, "file", model_class, fingerprint, linears);
  };
  EXPECT_NO_THROW(check("FluxTransformer2DModel", kFingerprint));
  EXPECT_NO_THROW(check("FluxTransformer2DModel", ""));
  expect_error(ErrorCode::kAdapterMismatch, {"file", "0123456789abcdef", "fedcba9876543210"},
               [&] { check("FluxTransformer2DModel", "fedcba9876543210"); });
  expect_error(ErrorCode::kAdapterMismatch, {"file", "\"FluxTransformer2DModel\"", "\"Qwen\""},
               [&] { check("Qwen", kFingerprint); });
  linears[0].n = 5;
  linears.erase(linears.begin() + 1);
  expect_error(ErrorCode::kAdapterMismatch,
               {"\"blocks.0.to_q\" has k 8, n 5, expected 8, 4", "no linear \"blocks.0.to_k\""},
               [&] { check("FluxTransformer2DModel", kFingerprint); });

  Adapter many = adapter;
  for (int i = 0; i < 10'000; ++i) many.linears.push_back({"x" + std::to_string(i), 1, 1, false, "-", 1, 0, 0, {}, {}});
  expect_error(ErrorCode::kAdapterMismatch, {"\"x2\"", "and 9997 more"},
               [&] { check_adapter(many, "file", "FluxTransformer2DModel", "", linears); });
}

}  // namespace
}  // namespace rtlynx::io
