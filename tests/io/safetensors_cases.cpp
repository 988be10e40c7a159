#include "tests/io/safetensors_cases.h"

#include <fmt/format.h>

namespace rtlynx::testing {
namespace {

using enum ErrorCode;
using Cases = std::vector<SafetensorsCase>;

std::string object(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

/// A header with one F32 tensor "a" of 2x2 in 16 bytes, whose fields may be replaced.
std::string one(std::string_view dtype = "\"F32\"", std::string_view shape = "[2,2]",
                std::string_view offsets = "[0,16]") {
  return object({safetensors_entry("a", dtype, shape, offsets)});
}

std::string two(std::string_view offsets_a, std::string_view offsets_b) {
  return object(
      {safetensors_entry("a", "\"F32\"", "[2,2]", offsets_a), safetensors_entry("b", "\"F32\"", "[2,2]", offsets_b)});
}

std::string nested(int depth) {
  std::string text = R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16],"x":)";
  return text + std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']') +
         "}}";
}

void add_length_and_json(Cases& cases) {
  const auto plain = [](std::string_view header, std::size_t data = 0) { return safetensors_bytes(header, data); };
  const std::string good = one();
  cases.push_back({"empty-file", "", kSafetensorsTooShort, {"0 bytes"}});
  cases.push_back({"seven-bytes", std::string(7, '\0'), kSafetensorsTooShort, {"7 bytes"}});
  cases.push_back({"length-0", safetensors_bytes("", 0, 0), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back({"length-0-with-data", safetensors_bytes(good, 16, 0), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back({"length-2^63",
                   safetensors_bytes(good, 16, uint64_t{1} << 63),
                   kSafetensorsHeaderTooLarge,
                   {"byte 0", "9223372036854775808"}});
  cases.push_back({"length-2^64-1", safetensors_bytes(good, 16, ~uint64_t{0}), kSafetensorsHeaderTooLarge, {"byte 0"}});
  cases.push_back(
      {"length-100000001", safetensors_bytes(good, 16, 100'000'001), kSafetensorsHeaderTooLarge, {"100000001"}});
  cases.push_back(
      {"length-past-end", safetensors_bytes(good, 0, good.size() + 1), kSafetensorsHeaderPastEnd, {"byte 0"}});
  cases.push_back(
      {"length-cuts-json", safetensors_bytes(good, 16, good.size() - 1), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back({"header-not-utf8", plain("{\"\xFF\":{}}"), kSafetensorsHeaderUtf8, {"header byte 10"}});
  cases.push_back({"name-not-utf8",
                   plain(object({safetensors_entry("\xC3(", "\"F32\"", "[2,2]", "[0,16]")}), 16),
                   kSafetensorsHeaderUtf8,
                   {"header byte 10"}});
  cases.push_back({"not-json", plain("notjson!"), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back({"array", plain("[]"), kSafetensorsHeaderType, {"an array"}});
  cases.push_back({"null", plain("null"), kSafetensorsHeaderType, {"null"}});
  cases.push_back({"number", plain("7"), kSafetensorsHeaderType, {"a number"}});
  cases.push_back({"two-values", plain("{}{}"), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back({"trailing-spaces", plain(good + "   ", 16), kOk, {}});
  cases.push_back({"leading-spaces", plain("  " + good, 16), kOk, {}});
  cases.push_back({"trailing-nul",
                   plain(good + std::string(3, '\0'), 16),
                   kSafetensorsHeaderJson,
                   {"NUL", fmt::format("header byte {}", 8 + good.size())}});
  cases.push_back({"byte-order-mark",
                   plain("\xEF\xBB\xBF" + good, 16),
                   kSafetensorsHeaderJson,
                   {"byte order mark", "header byte 8"}});
  cases.push_back({"comment", plain("/**/" + good, 16), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back(
      {"trailing-comma", plain(good.substr(0, good.size() - 1) + ",}", 16), kSafetensorsHeaderJson, {"header byte"}});
  cases.push_back({"depth-100000", plain(nested(100'000), 16), kSafetensorsHeaderDepth, {"\"a\"", "header byte"}});
  cases.push_back({"depth-17", plain(nested(15), 16), kSafetensorsHeaderDepth, {"\"a\"", "deeper than 16"}, true});
  cases.push_back({"depth-16", plain(nested(14), 16), kOk, {}});
  cases.push_back({"empty-object", plain("{}"), kOk, {}});
}

void add_keys(Cases& cases) {
  const std::string a = safetensors_entry("a", "\"F32\"", "[2,2]", "[0,16]");
  const auto with_metadata = [&](std::string_view metadata) {
    return fmt::format("{{\"__metadata__\":{},{}}}", metadata, a);
  };
  const auto add = [&](std::string name, std::string header, ErrorCode code, std::vector<std::string> mentions,
                       bool differs = false) {
    cases.push_back({std::move(name), safetensors_bytes(header, 16), code, std::move(mentions), differs});
  };
  add("duplicate-tensor", object({a, a}), kSafetensorsDuplicateTensor, {"\"a\"", "header byte"}, true);
  add("duplicate-tensor-other-entry", object({a, safetensors_entry("a", "\"F16\"", "[8]", "[0,16]")}),
      kSafetensorsDuplicateTensor, {"\"a\"", "header byte"}, true);
  add("duplicate-dtype", R"({"a":{"dtype":"F32","dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})",
      kSafetensorsDuplicateField, {"\"a\"", "dtype", "header byte"});
  add("duplicate-shape", R"({"a":{"dtype":"F32","shape":[2,2],"shape":[4],"data_offsets":[0,16]}})",
      kSafetensorsDuplicateField, {"\"a\"", "shape", "header byte"});
  add("duplicate-metadata",
      R"({"__metadata__":{},"__metadata__":{},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})",
      kSafetensorsDuplicateMetadata, {"__metadata__", "header byte"});
  add("duplicate-metadata-key", with_metadata(R"({"k":"1","k":"2"})"), kSafetensorsDuplicateMetadata,
      {"\"k\"", "header byte"}, true);
  add("metadata-number", with_metadata(R"({"k":1})"), kSafetensorsMetadata, {"\"k\"", "a number"});
  add("metadata-nested", with_metadata(R"({"k":{}})"), kSafetensorsMetadata, {"\"k\"", "an object"});
  add("metadata-array", with_metadata("[]"), kSafetensorsMetadata, {"__metadata__", "an array"});
  add("metadata-text", with_metadata("\"x\""), kSafetensorsMetadata, {"__metadata__", "a text"});
  add("metadata-null", with_metadata("null"), kOk, {});
  add("metadata", with_metadata(R"({"k":"v","":"\u0000 empty key"})"), kOk, {});
  add("unknown-field",
      R"({"a":{"dtype":"F32","x":{"y":[1,"2",null,true,-1,1.5]},"shape":[2,2],"data_offsets":[0,16]}})", kOk, {});
  add("missing-dtype", R"({"a":{"shape":[2,2],"data_offsets":[0,16]}})", kSafetensorsFieldMissing,
      {"\"a\"", "dtype", "header byte"});
  add("missing-shape", R"({"a":{"dtype":"F32","data_offsets":[0,16]}})", kSafetensorsFieldMissing, {"\"a\"", "shape"});
  add("missing-offsets", R"({"a":{"dtype":"F32","shape":[2,2]}})", kSafetensorsFieldMissing, {"\"a\"", "data_offsets"});
  add("entry-null", R"({"a":null})", kSafetensorsHeaderType, {"\"a\"", "null"});
  add("entry-array", R"({"a":[]})", kSafetensorsHeaderType, {"\"a\"", "an array"});
  add("entry-text", R"({"a":"F32"})", kSafetensorsHeaderType, {"\"a\"", "a text"});
  add("unknown-dtype", one("\"F128\""), kSafetensorsDType, {"\"a\"", "\"F128\"", "header byte"});
  add("lower-case-dtype", one("\"f32\""), kSafetensorsDType, {"\"a\"", "\"f32\""});
  add("dtype-number", one("32"), kSafetensorsFieldType, {"\"a\"", "dtype"});
  add("dtype-array", one("[\"F32\"]"), kSafetensorsFieldType, {"\"a\"", "dtype"});
  add("shape-number", one("\"F32\"", "4"), kSafetensorsFieldType, {"\"a\"", "shape"});
  add("shape-object", one("\"F32\"", "{}"), kSafetensorsFieldType, {"\"a\"", "shape"});
  add("offsets-null", one("\"F32\"", "[2,2]", "null"), kSafetensorsFieldType, {"\"a\"", "data_offsets"});
}

void add_numbers(Cases& cases) {
  const auto shape = [&](std::string name, std::string_view value, ErrorCode code, std::string mention) {
    cases.push_back({std::move(name),
                     safetensors_bytes(one("\"F32\"", value), 16),
                     code,
                     {"\"a\"", "header byte", std::move(mention)}});
  };
  shape("shape-negative", "[-2,-2]", kSafetensorsNumber, "a negative number");
  shape("shape-fraction", "[2,2.0]", kSafetensorsNumber, "a fraction");
  shape("shape-exponent", "[2,2e0]", kSafetensorsNumber, "a fraction");
  shape("shape-text", "[2,\"2\"]", kSafetensorsNumber, "a text");
  shape("shape-null", "[2,null]", kSafetensorsNumber, "null");
  shape("shape-nested", "[[2,2]]", kSafetensorsNumber, "an array");
  shape("shape-2^64", "[18446744073709551616]", kSafetensorsNumber, "too large");
  shape("shape-2^63", "[9223372036854775808,0]", kSafetensorsShapeOverflow, "9223372036854775808");
  shape("shape-product-overflow", "[4611686018427387904,4]", kSafetensorsShapeOverflow, "63 bits");
  shape("shape-2^32x2^32", "[4294967296,4294967296]", kSafetensorsShapeOverflow, "63 bits");
  shape("shape-bytes-overflow", "[4611686018427387904]", kSafetensorsShapeOverflow, "63 bits");
  shape("shape-other-than-offsets", "[2,3]", kSafetensorsSizeMismatch, "24 bytes");
  shape("shape-nan", "[NaN]", kSafetensorsHeaderJson, "syntax");
  shape("shape-leading-zero", "[02,2]", kSafetensorsHeaderJson, "syntax");
  cases.push_back({"shape-0x2^63-1x2^63-1",
                   safetensors_bytes(one("\"F32\"", "[0,9223372036854775807,9223372036854775807]", "[0,0]")),
                   kSafetensorsShapeOverflow,
                   {"\"a\"", "63 bits"},
                   true});
  const auto offsets = [&](std::string name, std::string_view value, ErrorCode code, std::string mention,
                           std::size_t data = 16) {
    cases.push_back({std::move(name),
                     safetensors_bytes(one("\"F32\"", "[2,2]", value), data),
                     code,
                     {"\"a\"", "header byte", std::move(mention)}});
  };
  offsets("offsets-negative", "[-16,0]", kSafetensorsNumber, "data_offsets");
  offsets("offsets-fraction", "[0,16.0]", kSafetensorsNumber, "a fraction");
  offsets("offsets-exponent", "[0,16e0]", kSafetensorsNumber, "a fraction");
  offsets("offsets-text", "[0,\"16\"]", kSafetensorsNumber, "a text");
  offsets("offsets-2^64", "[0,18446744073709551616]", kSafetensorsNumber, "too large");
  offsets("offsets-three", "[0,16,16]", kSafetensorsFieldType, "two numbers");
  offsets("offsets-one", "[16]", kSafetensorsFieldType, "two numbers");
  offsets("offsets-none", "[]", kSafetensorsFieldType, "two numbers");
  offsets("offsets-reversed", "[16,0]", kSafetensorsOffsetsReversed, "begins at 16");
  offsets("offsets-2^64-1", "[18446744073709551599,18446744073709551615]", kSafetensorsPastEnd, "18446744073709551615");
  offsets("offsets-past-end", "[16,32]", kSafetensorsPastEnd, "ends at data byte 32");
  offsets("offsets-too-short", "[0,12]", kSafetensorsSizeMismatch, "call for 16 bytes");
  cases.push_back({"dtype-other-than-offsets",
                   safetensors_bytes(one("\"F64\""), 16),
                   kSafetensorsSizeMismatch,
                   {"\"a\"", "call for 32 bytes"}});
}

void add_layout(Cases& cases) {
  const auto add = [&](std::string name, const std::string& header, std::size_t data, ErrorCode code,
                       std::vector<std::string> mentions) {
    cases.push_back({std::move(name), safetensors_bytes(header, data), code, std::move(mentions)});
  };
  std::vector<std::string> same;
  for (int i = 0; i < 10; ++i) same.push_back(safetensors_entry(fmt::format("t{}", i), "\"F32\"", "[2,2]", "[0,16]"));
  add("ten-tensors-same-bytes", object(same), 16, kSafetensorsOverlap, {"\"t1\"", "begins at byte"});
  add("overlap", two("[0,16]", "[8,24]"), 24, kSafetensorsOverlap, {"\"b\"", "begins at byte"});
  add("hole", two("[0,16]", "[24,40]"), 40, kSafetensorsHole, {"\"b\"", "begins at byte"});
  add("hole-at-start", one("\"F32\"", "[2,2]", "[16,32]"), 32, kSafetensorsHole, {"\"a\"", "begins at byte"});
  add("trailing-bytes", one(), 17, kSafetensorsTrailingBytes, {"tensors end at byte"});
  add("only-trailing-bytes", "{}", 1, kSafetensorsTrailingBytes, {"tensors end at byte 10"});
  add("truncated-by-one", one(), 15, kSafetensorsPastEnd, {"\"a\"", "the file has 15"});
  add("no-data", one(), 0, kSafetensorsPastEnd, {"\"a\"", "the file has 0"});
  add("reordered", two("[16,32]", "[0,16]"), 32, kOk, {});
  add("zero-size",
      object({safetensors_entry("a", "\"F32\"", "[2,2]", "[0,16]"),
              safetensors_entry("z", "\"F32\"", "[0,3]", "[16,16]")}),
      16, kOk, {});
  add("zero-size-first",
      object(
          {safetensors_entry("z", "\"F32\"", "[3,0]", "[0,0]"), safetensors_entry("a", "\"F32\"", "[2,2]", "[0,16]")}),
      16, kOk, {});
  add("zero-size-inside",
      object({safetensors_entry("z", "\"F32\"", "[0]", "[8,8]"), safetensors_entry("a", "\"F32\"", "[2,2]", "[0,16]")}),
      16, kSafetensorsOverlap, {"\"z\""});
  add("scalar", object({safetensors_entry("s", "\"F32\"", "[]", "[0,4]")}), 4, kOk, {});
  add("misaligned",
      object({safetensors_entry("x", "\"U8\"", "[1]", "[0,1]"), safetensors_entry("y", "\"F32\"", "[1]", "[1,5]")}), 5,
      kOk, {});
  add("f4-odd-count", one("\"F4\"", "[3]", "[0,1]"), 1, kSafetensorsDType, {"\"a\"", "\"F4\""});
}

void add_names(Cases& cases) {
  const auto named = [&](std::string name, std::string_view tensor, ErrorCode code, std::vector<std::string> mentions,
                         bool differs) {
    cases.push_back({std::move(name),
                     safetensors_bytes(object({safetensors_entry(tensor, "\"F32\"", "[2,2]", "[0,16]")}), 16), code,
                     std::move(mentions), differs});
  };
  named("name-empty", "", kSafetensorsName, {"empty", "header byte"}, true);
  named("name-path-nul-newline", R"(../../x\u0000\n)", kSafetensorsName, {R"("../../x\x00\x0a")", "header byte"}, true);
  named("name-escape-sequence", R"(\u001b[2J)", kSafetensorsName, {R"(\x1b[2J)"}, true);
  named("name-c1-control",
        "\xC2\x9B"
        "2J",
        kSafetensorsName, {R"(\xc2\x9b2J)"}, true);
  named("name-1-mb", std::string(1 << 20, 'n'), kSafetensorsName, {"nnnn", "1024 bytes"}, true);
  named("name-1025", std::string(1025, 'n'), kSafetensorsName, {"1024 bytes"}, true);
  named("name-1024", std::string(1024, 'n'), kOk, {}, false);
  named("name-path", "../../x", kOk, {}, false);
  named("name-utf8", "\xE2\x82\xAC", kOk, {}, false);
  named("name-lone-surrogate", R"(\ud800)", kSafetensorsHeaderJson, {"header byte"}, false);
  const auto ones = [](int rank) {
    std::string shape = "[1";
    for (int i = 1; i < rank; ++i) shape += ",1";
    return shape + "]";
  };
  const auto ranked = [&](std::string name, int rank, ErrorCode code, bool differs) {
    cases.push_back(
        {std::move(name), safetensors_bytes(one("\"U8\"", ones(rank), "[0,1]"), 1), code,
         code == kOk ? std::vector<std::string>{} : std::vector<std::string>{"\"a\"", "8 dimensions", "header byte"},
         differs});
  };
  ranked("rank-8", 8, kOk, false);
  ranked("rank-9", 9, kSafetensorsRank, true);
  ranked("rank-1000", 1000, kSafetensorsRank, true);
  ranked("rank-100000", 100'000, kSafetensorsRank, true);
  std::vector<std::string> many;
  for (int i = 0; i < 100'000; ++i) many.push_back(safetensors_entry(fmt::format("t{}", i), "\"U8\"", "[0]", "[0,0]"));
  cases.push_back({"tensors-100000", safetensors_bytes(object(many)), kOk, {}});
}

}  // namespace

std::string safetensors_bytes(std::string_view header, std::size_t data_bytes, std::optional<uint64_t> length) {
  std::string bytes;
  const uint64_t written = length.value_or(header.size());
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(written >> (8 * i) & 0xFF);
  bytes += header;
  for (std::size_t i = 0; i < data_bytes; ++i) bytes += static_cast<char>(i % 251);
  return bytes;
}

std::string safetensors_entry(std::string_view name, std::string_view dtype, std::string_view shape,
                              std::string_view offsets) {
  return fmt::format(R"("{}":{{"dtype":{},"shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

std::vector<SafetensorsCase> safetensors_cases() {
  Cases cases;
  add_length_and_json(cases);
  add_keys(cases);
  add_numbers(cases);
  add_layout(cases);
  add_names(cases);
  return cases;
}

}  // namespace rtlynx::testing
