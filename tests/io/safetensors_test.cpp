#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <set>
#include <thread>

#include "core/alloc.h"
#include "io/safetensors_header.h"
#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"
#include "tests/io/safetensors_cases.h"

namespace rtlynx::io {
namespace {

using testing::expect_error;
using testing::FaultyFileSystem;
using testing::safetensors_bytes;
using testing::safetensors_entry;
using testing::SafetensorsCase;
using testing::TemporaryFolder;

std::vector<std::byte> bytes_of(const SafetensorsFile& file, std::string_view name) {
  const TensorInfo* tensor = file.find(name);
  if (tensor == nullptr) throw std::out_of_range("no such tensor");
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor->end - tensor->begin));
  file.read(*tensor, bytes);
  return bytes;
}

class Corpus : public ::testing::TestWithParam<SafetensorsCase> {};

TEST_P(Corpus, GivesItsCode) {
  const SafetensorsCase& c = GetParam();
  const TemporaryFolder folder;
  const auto path = folder.write(c.name + ".safetensors", c.bytes);
  const std::clock_t start = std::clock();
  try {
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(error_name(ErrorCode::kOk), error_name(c.expected)) << "was accepted";
    for (const TensorInfo& tensor : file.tensors()) EXPECT_EQ(file.find(tensor.name), &tensor);
  } catch (const Error& error) {
    EXPECT_EQ(error_name(error.code()), error_name(c.expected)) << error.what();
    const std::string& message = error.status().message();
    EXPECT_NE(message.find(path.string()), std::string::npos) << message;
    EXPECT_NE(message.find("byte"), std::string::npos) << message;
    EXPECT_EQ(message.find_first_of("\n\x1b"), std::string::npos) << message;
    EXPECT_LT(message.size(), path.string().size() + 400) << message;
    for (const std::string& mention : c.mentions) {
      EXPECT_NE(message.find(mention), std::string::npos) << "expected \"" << mention << "\" in: " << message;
    }
  }
  // Of the processor: the machine may be busy.
  EXPECT_LT(std::clock() - start, CLOCKS_PER_SEC);
}

INSTANTIATE_TEST_SUITE_P(Safetensors, Corpus, ::testing::ValuesIn(testing::safetensors_cases()),
                         [](const ::testing::TestParamInfo<SafetensorsCase>& tested) {
                           std::string name = tested.param.name;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

TEST(Safetensors, PointsAtTheByte) {
  const TemporaryFolder folder;
  const std::string header = R"({"a":{"dtype":"F32","shape":[2,x],"data_offsets":[0,16]}})";
  const auto path = folder.write("a.safetensors", safetensors_bytes(header, 16));
  const std::string byte = "header byte " + std::to_string(8 + header.find('x') + 1);
  expect_error(ErrorCode::kSafetensorsHeaderJson, {"\"a\"", byte}, [&] { SafetensorsFile::open(path); });
}

TEST(Safetensors, GivesTensorsInTheOrderOfTheirBytes) {
  const TemporaryFolder folder;
  const auto path =
      folder.write("a.safetensors", safetensors_bytes("{" + safetensors_entry("b", "\"U8\"", "[2]", "[3,5]") + "," +
                                                          R"("__metadata__":{"k":"v"},)" +
                                                          safetensors_entry("a", "\"U8\"", "[3,1]", "[0,3]") + "}",
                                                      5));
  const SafetensorsFile file = SafetensorsFile::open(path);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[0].shape, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(file.tensors()[1].name, "b");
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(bytes_of(file, "a"), (std::vector<std::byte>{std::byte{0}, std::byte{1}, std::byte{2}}));
  EXPECT_EQ(bytes_of(file, "b"), (std::vector<std::byte>{std::byte{3}, std::byte{4}}));
  std::vector<std::byte> wrong(4);
  expect_error(ErrorCode::kInvalidArgument, {"\"b\"", "4 bytes"}, [&] { file.read(*file.find("b"), wrong); });
  expect_error(ErrorCode::kInvalidArgument, {"\"b\""},
               [&] { file.read_part(*file.find("b"), 1, std::span(wrong).first(2)); });
}

TEST(Safetensors, TooManyTensorsAndMetadata) {
  std::string header = "{";
  for (std::size_t i = 0; i <= kSafetensorsMaxTensors; ++i) {
    header += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  header += "}";
  expect_error(ErrorCode::kSafetensorsTooManyTensors, {"1000000", "memory"},
               [&] { parse_safetensors_header(header, 8 + header.size(), "memory"); });
  std::string metadata = R"({"__metadata__":{)";
  for (std::size_t i = 0; i <= kSafetensorsMaxMetadataKeys; ++i)
    metadata += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":"")";
  metadata += "}}";
  expect_error(ErrorCode::kSafetensorsMetadata, {"65536", "memory"},
               [&] { parse_safetensors_header(metadata, 8 + metadata.size(), "memory"); });
}

TEST(Safetensors, RefusesPickles) {
  const TemporaryFolder folder;
  for (const std::string name : {"a.bin", "a.pt", "a.pth", "a.ckpt", "a.pkl"}) {
    expect_error(ErrorCode::kPickleRefused, {name, ".safetensors"},
                 [&] { SafetensorsFile::open(folder.write(name, "x")); });
  }
  const auto zip = folder.write("zip.safetensors", std::string("PK\x03\x04\x14\0\0\0 rest", 13));
  expect_error(ErrorCode::kPickleRefused, {"zip.safetensors"}, [&] { SafetensorsFile::open(zip); });
  const auto pickle = folder.write("pickle.safetensors", std::string("\x80\x02}q\0X\x05\0\0\0 rest", 14));
  expect_error(ErrorCode::kPickleRefused, {"pickle.safetensors"}, [&] { SafetensorsFile::open(pickle); });
}

TEST(Safetensors, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::kNotAFile, {folder.path().string()}, [&] { SafetensorsFile::open(folder.path()); });
  expect_error(ErrorCode::kNotAFile, {"/dev/zero"}, [] { SafetensorsFile::open("/dev/zero"); });
  expect_error(ErrorCode::kNotFound, {"none"}, [&] { SafetensorsFile::open(folder / "none.safetensors"); });
}

TEST(Safetensors, HolesOnDiskCostNoMemory) {
  const TemporaryFolder folder;
  constexpr uintmax_t kTenGigabytes = 10'000'000'000;
  const auto zeros = folder.write("zeros.safetensors", "");
  std::filesystem::resize_file(zeros, kTenGigabytes);
  expect_error(ErrorCode::kSafetensorsHeaderJson, {zeros.string()}, [&] { SafetensorsFile::open(zeros); });

  // 4 GiB + 1 byte, then three bytes that must be found behind it.
  const std::string header = "{" + safetensors_entry("a", "\"U8\"", "[4294967297]", "[0,4294967297]") + "," +
                             safetensors_entry("b", "\"U8\"", "[3]", "[4294967297,4294967300]") + "}";
  const auto large = folder.write("large.safetensors", safetensors_bytes(header));
  std::filesystem::resize_file(large, 8 + header.size() + 4294967297);
  std::ofstream(large, std::ios::binary | std::ios::app) << "xyz";
  const SafetensorsFile file = SafetensorsFile::open(large);
  EXPECT_EQ(bytes_of(file, "b"), (std::vector<std::byte>{std::byte{'x'}, std::byte{'y'}, std::byte{'z'}}));
}

std::filesystem::path write_good(const TemporaryFolder& folder) {
  return folder.write("good.safetensors",
                      safetensors_bytes("{" + safetensors_entry("a", "\"F32\"", "[256]", "[0,1024]") + "}", 1024));
}

TEST(Safetensors, NoticesTruncationWhileLoading) {
  const TemporaryFolder folder;
  const auto path = write_good(folder);
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  expect_error(ErrorCode::kFileChanged, {path.string(), "tensor \"a\"", "byte"}, [&] { bytes_of(file, "a"); });
}

// Another thread truncates, rewrites and replaces the file while it is loaded: an error or the right bytes, no signal.
TEST(Safetensors, SurvivesAHundredRacesWithAWriter) {
  const TemporaryFolder folder;
  const auto path = write_good(folder);
  const std::string good = testing::slurp(path);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      if (i % 3 == 0) folder.write("good.safetensors", good.substr(0, good.size() / 2));
      if (i % 3 == 1) folder.write("good.safetensors", good);
      if (i % 3 == 2) {
        folder.write("other", good);
        std::filesystem::rename(folder / "other", path);
      }
    }
  });
  for (int round = 0; round < 100; ++round) {
    try {
      EXPECT_EQ(bytes_of(SafetensorsFile::open(path), "a").size(), 1024u);
    } catch (const Error& error) {
      const std::set<ErrorCode> allowed = {ErrorCode::kFileChanged, ErrorCode::kSafetensorsTooShort,
                                           ErrorCode::kSafetensorsPastEnd, ErrorCode::kSafetensorsHeaderPastEnd};
      EXPECT_TRUE(allowed.contains(error.code())) << error.what();
    }
  }
  stop = true;
  writer.join();
}

TEST(Safetensors, SurvivesShortReads) {
  const TemporaryFolder folder;
  const auto path = write_good(folder);
  FaultyFileSystem faulty({.at_call = 1, .and_all_later = true, .kind = FaultyFileSystem::Kind::kShortTransfer});
  const ScopedFileSystem scope(faulty);
  const auto bytes = bytes_of(SafetensorsFile::open(path), "a");
  for (std::size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(std::to_integer<std::size_t>(bytes[i]), i % 251);
}

TEST(Safetensors, EveryFailingCallIsReported) {
  const TemporaryFolder folder;
  const auto path = write_good(folder);
  bool fired = true;
  for (int64_t k = 1; fired; ++k) {
    FaultyFileSystem faulty({.at_call = k, .error = EIO});
    const ScopedFileSystem scope(faulty);
    bool failed = false;
    bool last_is_stat = false;
    try {
      EXPECT_EQ(bytes_of(SafetensorsFile::open(path), "a").size(), 1024u);
    } catch (const Error& error) {
      failed = true;
      EXPECT_EQ(error.code(), ErrorCode::kReadFailed) << error.what();
      EXPECT_NE(error.status().message().find(path.string()), std::string::npos);
    }
    fired = faulty.fired();
    // What only looks for changes after a read, or gives a descriptor up, has nothing to report.
    const std::string what = fired ? faulty.journal()[static_cast<std::size_t>(k - 1)].what : "";
    last_is_stat = (what == "stat" && k > 2) || what == "close";
    EXPECT_EQ(failed, fired && !last_is_stat) << "call " << k << " " << what;
    ASSERT_LT(k, 50);
  }
}

TEST(Safetensors, HeaderAllocationMayFail) {
  const TemporaryFolder folder;
  const auto path = write_good(folder);
  fail_allocation(1);
  expect_error(ErrorCode::kOutOfMemory, {path.string(), "header"}, [&] { SafetensorsFile::open(path); });
  fail_allocation(0);
  EXPECT_NO_THROW(SafetensorsFile::open(path));
}

}  // namespace
}  // namespace rtlynx::io
