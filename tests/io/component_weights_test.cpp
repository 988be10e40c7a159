#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/hash64.h"
#include "io/adapter.h"
#include "io/confine.h"
#include "io/safetensors.h"
#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"
#include "tests/io/safetensors_cases.h"

namespace rtlynx::io {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::FaultyFileSystem;
using testing::TemporaryFolder;

constexpr std::string_view kIndex = "diffusion_pytorch_model.safetensors.index.json";

std::string shard(std::string_view name, int elements = 4) {
  const std::string size = std::to_string(elements);
  return testing::safetensors_bytes(
      "{" + testing::safetensors_entry(name, "\"U8\"", "[" + size + "]", "[0," + size + "]") + "}",
      static_cast<std::size_t>(elements));
}

/// Two shards, "a" in the first and "b" in the second, and their index.
json write_shards(const TemporaryFolder& folder) {
  folder.write("s1.safetensors", shard("a"));
  folder.write("s2.safetensors", shard("b", 6));
  json index = {{"metadata", {{"total_size", 10}}}, {"weight_map", {{"a", "s1.safetensors"}, {"b", "s2.safetensors"}}}};
  folder.write(kIndex, index.dump());
  return index;
}

void expect_refused(const TemporaryFolder& folder, const json& index, ErrorCode code,
                    std::initializer_list<std::string_view> mentions) {
  folder.write(kIndex, index.dump());
  expect_error(code, mentions, [&] { ComponentWeights::open(folder.path()); });
}

TEST(ComponentWeights, ReadsOneFile) {
  for (const std::string_view name : {"diffusion_pytorch_model.safetensors", "model.safetensors"}) {
    const TemporaryFolder folder;
    folder.write(name, shard("a"));
    const auto weights = ComponentWeights::open(folder.path());
    EXPECT_EQ(weights.names(), std::vector<std::string>{"a"});
    EXPECT_EQ(weights.total_bytes(), 4u);
    EXPECT_EQ(weights.find("b").first, nullptr);
  }
}

TEST(ComponentWeights, ReadsShards) {
  const TemporaryFolder folder;
  write_shards(folder);
  const auto weights = ComponentWeights::open(folder.path());
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(weights.total_bytes(), 10u);
  const auto [file, tensor] = weights.find("b");
  ASSERT_NE(tensor, nullptr);
  std::vector<std::byte> bytes(6);
  file->read(*tensor, bytes);
  EXPECT_EQ(bytes[5], std::byte{5});
}

TEST(ComponentWeights, AcceptsTotalSizeAsAFloat) {
  const TemporaryFolder folder;
  json index = write_shards(folder);
  index["metadata"]["total_size"] = 10.0;
  folder.write(kIndex, index.dump());
  EXPECT_NO_THROW(ComponentWeights::open(folder.path()));
}

TEST(ComponentWeights, RefusesMalformedIndices) {
  const TemporaryFolder folder;
  const json good = write_shards(folder);
  expect_refused(folder, json::array(), ErrorCode::kIndexMalformed, {kIndex, "weight_map"});
  expect_refused(folder, {{"metadata", {}}}, ErrorCode::kIndexMalformed, {kIndex, "weight_map"});
  json index = good;
  index["weight_map"]["a"] = 7;
  expect_refused(folder, index, ErrorCode::kIndexMalformed, {kIndex, "\"a\""});
  for (const json& size : {json(-1), json("10"), json(10.5e300), json(nullptr)}) {
    index = good;
    index["metadata"]["total_size"] = size;
    expect_refused(folder, index, ErrorCode::kIndexMalformed, {kIndex, "total_size"});
  }
  index = good;
  for (int i = 0; i < 600; ++i) index["weight_map"]["t" + std::to_string(i)] = "f" + std::to_string(i);
  expect_refused(folder, index, ErrorCode::kIndexMalformed, {kIndex, "602 files"});
  folder.write(kIndex, R"({"weight_map":{"a":"s1.safetensors","a":"s2.safetensors"}})");
  expect_error(ErrorCode::kBadJson, {kIndex, "duplicate key \"a\""}, [&] { ComponentWeights::open(folder.path()); });
}

TEST(ComponentWeights, RefusesShardsThatContradictTheIndex) {
  const TemporaryFolder folder;
  const json good = write_shards(folder);
  json index = good;
  index["weight_map"]["c"] = "s3.safetensors";
  expect_refused(folder, index, ErrorCode::kShardMissing, {kIndex, "\"s3.safetensors\""});
  index = good;
  index["weight_map"]["c"] = "s2.safetensors";
  expect_refused(folder, index, ErrorCode::kShardTensorAbsent, {"s2.safetensors", "\"c\""});
  index = good;
  index["metadata"]["total_size"] = 11;
  expect_refused(folder, index, ErrorCode::kShardTotalSize, {kIndex, "11", "10 bytes"});

  folder.write(kIndex, good.dump());
  const std::string both = "{" + testing::safetensors_entry("a", "\"U8\"", "[4]", "[0,4]") + "," +
                           testing::safetensors_entry("b", "\"U8\"", "[2]", "[4,6]") + "}";
  folder.write("s2.safetensors", testing::safetensors_bytes(both, 6));
  expect_error(ErrorCode::kShardDuplicateTensor, {"s2.safetensors", "\"a\""},
               [&] { ComponentWeights::open(folder.path()); });
  index = good;
  index["weight_map"].erase("a");
  expect_refused(folder, index, ErrorCode::kShardTensorUnlisted, {"s2.safetensors", "\"a\""});
}

TEST(ComponentWeights, AMalformedShardKeepsItsCode) {
  const TemporaryFolder folder;
  write_shards(folder);
  folder.write("s2.safetensors", shard("b", 6) + "x");
  expect_error(ErrorCode::kSafetensorsTrailingBytes, {"s2.safetensors"},
               [&] { ComponentWeights::open(folder.path()); });
}

TEST(ComponentWeights, RefusesTwoSourcesAndNone) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::kNotFound, {folder.path().string()}, [&] { ComponentWeights::open(folder.path()); });
  expect_error(ErrorCode::kNotFound, {"none"}, [&] { ComponentWeights::open(folder / "none"); });
  expect_error(ErrorCode::kNotAFile, {"file"}, [&] { ComponentWeights::open(folder.write("file", "")); });
  write_shards(folder);
  folder.write("diffusion_pytorch_model.safetensors", shard("a"));
  expect_error(ErrorCode::kIndexMalformed, {"beside it"}, [&] { ComponentWeights::open(folder.path()); });
}

TEST(ComponentWeights, RefusesAPickleAndNamesTheFix) {
  for (const std::string_view name : {"pytorch_model.bin", "model.ckpt", "diffusion_pytorch_model.pt"}) {
    const TemporaryFolder folder;
    folder.write(name, "x");
    expect_error(ErrorCode::kPickleRefused, {name, "safetensors"}, [&] { ComponentWeights::open(folder.path()); });
  }
}

/// Every path that was opened, resolved, lies in `folder`.
void expect_confined(const FaultyFileSystem& journal, const std::filesystem::path& folder) {
  for (const auto& call : journal.journal()) {
    EXPECT_TRUE(call.what != "open" || call.path.starts_with(folder.string() + "/")) << call.path;
  }
}

TEST(ComponentWeights, NeverOpensAFileOutsideOfTheFolder) {
  const TemporaryFolder outside;
  outside.write("secret.safetensors", shard("b", 6));
  const std::string secret = (outside / "secret.safetensors").string();
  const std::string relative = "../" + outside.path().filename().string() + "/secret.safetensors";
  for (const std::string& name : {relative, secret, "sub/../" + relative, std::string("sub/s2.safetensors"),
                                  std::string(".."), std::string("."), std::string(), std::string("s2\nx"),
                                  std::string("..\\s2"), std::string(300, 'n'), std::string("s2.safetensors\0x", 16)}) {
    const TemporaryFolder folder;
    json index = write_shards(folder);
    folder.write("sub/s2.safetensors", shard("b", 6));
    index["weight_map"]["b"] = name;
    FaultyFileSystem journal;
    const ScopedFileSystem scope(journal);
    expect_refused(folder, index, ErrorCode::kOutsideFolder, {folder.path().string(), "plain file name"});
    expect_confined(journal, folder.path());
  }
}

TEST(ComponentWeights, FollowsLinksInsideOnly) {
  const TemporaryFolder outside;
  outside.write("secret.safetensors", shard("b", 6));
  const TemporaryFolder folder;
  write_shards(folder);
  std::filesystem::rename(folder / "s2.safetensors", folder / "real.safetensors");
  std::filesystem::create_symlink("real.safetensors", folder / "s2.safetensors");
  EXPECT_NO_THROW(ComponentWeights::open(folder.path()));
  std::filesystem::remove(folder / "s2.safetensors");
  std::filesystem::create_symlink(outside / "secret.safetensors", folder / "s2.safetensors");
  FaultyFileSystem journal;
  const ScopedFileSystem scope(journal);
  expect_error(ErrorCode::kOutsideFolder, {"s2.safetensors", "link out of its folder"},
               [&] { ComponentWeights::open(folder.path()); });
  expect_confined(journal, folder.path());
  std::filesystem::remove(folder / "s2.safetensors");
  std::filesystem::create_symlink("s2.safetensors", folder / "s2.safetensors");
  expect_error(ErrorCode::kReadFailed, {"s2.safetensors", "symbolic links"},
               [&] { ComponentWeights::open(folder.path()); });
}

// The cache of Hugging Face keeps the files as models--x/blobs/<hash> and links to them from the snapshot.
TEST(ComponentWeights, ReadsTheLayoutOfTheHubCache) {
  const TemporaryFolder cache;
  cache.write("models--org--x/blobs/123", shard("a"));
  cache.write("models--org--other/blobs/456", shard("a"));
  const auto snapshot = cache / "models--org--x/snapshots/abc/vae";
  std::filesystem::create_directories(snapshot);
  std::filesystem::create_symlink("../../../blobs/123", snapshot / "model.safetensors");
  EXPECT_EQ(ComponentWeights::open(snapshot).names(), std::vector<std::string>{"a"});
  std::filesystem::remove(snapshot / "model.safetensors");
  std::filesystem::create_symlink("../../../../models--org--other/blobs/456", snapshot / "model.safetensors");
  expect_error(ErrorCode::kOutsideFolder, {"model.safetensors"}, [&] { ComponentWeights::open(snapshot); });
}

TEST(Fingerprint, DependsOnContentsAndNotOnShards) {
  const TemporaryFolder shards;
  write_shards(shards);
  const std::string expected = fingerprint(ComponentWeights::open(shards.path()));
  EXPECT_EQ(expected.size(), 16u);

  const std::string both = "{" + testing::safetensors_entry("b", "\"U8\"", "[6]", "[0,6]") + "," +
                           testing::safetensors_entry("a", "\"U8\"", "[4]", "[6,10]") + "}";
  std::string bytes = testing::safetensors_bytes(both, 6) + std::string("\0\1\2\3", 4);
  const TemporaryFolder single;
  single.write("model.safetensors", bytes);
  EXPECT_EQ(fingerprint(ComponentWeights::open(single.path())), expected);

  bytes.back() = '\7';
  single.write("model.safetensors", bytes);
  EXPECT_NE(fingerprint(ComponentWeights::open(single.path())), expected);
}

// The description in adapter.h, computed another way.
TEST(Fingerprint, IsWhatTheHeaderSays) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", shard("a"));
  Hash64 hash;
  hash.update(std::string_view("a\0U8\0", 5));
  hash.update(std::string_view("\1\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0", 16));
  hash.update(std::string_view("\0\1\2\3", 4));
  EXPECT_EQ(fingerprint(ComponentWeights::open(folder.path())), hex16(hash.digest()));
}

}  // namespace
}  // namespace rtlynx::io
