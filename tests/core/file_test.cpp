#include "core/file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>

#include "tests/core/expect_error.h"
#include "tests/core/faulty_filesystem.h"
#include "tests/core/temporary_folder.h"

namespace rtlynx {
namespace {

using testing::expect_error;
using testing::FaultyFileSystem;
using testing::slurp;
using testing::TemporaryFolder;

std::string read_all(const std::filesystem::path& path) {
  return read_whole_file(path, 1 << 20);
}

TEST(ReadFile, ReadsByPosition) {
  const TemporaryFolder folder;
  const ReadFile file = ReadFile::open(folder.write("a", "0123456789"));
  std::array<std::byte, 3> bytes{};
  file.read(4, bytes);
  EXPECT_EQ(std::to_integer<char>(bytes[0]), '4');
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(read_all(folder / "a"), "0123456789");
}

TEST(ReadFile, OpensRegularFilesOnly) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::kNotFound, {"none"}, [&] { ReadFile::open(folder / "none"); });
  expect_error(ErrorCode::kNotFound, {"file/none"}, [&] {
    folder.write("file", "");
    ReadFile::open(folder / "file/none");
  });
  expect_error(ErrorCode::kNotAFile, {folder.path().string(), "folder"}, [&] { ReadFile::open(folder.path()); });
  expect_error(ErrorCode::kNotAFile, {"/dev/zero"}, [] { ReadFile::open("/dev/zero"); });
  const auto fifo = folder / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_error(ErrorCode::kNotAFile, {"fifo"}, [&] { ReadFile::open(fifo); });
}

TEST(ReadFile, FollowsLinksWhereAllowed) {
  const TemporaryFolder folder;
  folder.write("target", "text");
  std::filesystem::create_symlink("target", folder / "link");
  std::filesystem::create_symlink("loop", folder / "loop");
  EXPECT_EQ(read_all(folder / "link"), "text");
  expect_error(ErrorCode::kReadFailed, {"link", "symbolic links"},
               [&] { ReadFile::open(folder / "link", OpenMode::kReadNoFollow); });
  expect_error(ErrorCode::kReadFailed, {"loop", "symbolic links"}, [&] { ReadFile::open(folder / "loop"); });
}

TEST(ReadFile, NoticesChanges) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", std::string(100, 'x'));
  const ReadFile file = ReadFile::open(path);
  std::array<std::byte, 50> bytes{};
  std::filesystem::resize_file(path, 70);
  expect_error(ErrorCode::kFileChanged, {path.string(), "byte 70", "100 bytes"}, [&] { file.read(50, bytes); });
  expect_error(ErrorCode::kFileChanged, {path.string(), "written to"}, [&] { file.read(0, bytes); });
}

TEST(ReadFile, KeepsReadingWhatItOpenedWhenTheNameIsTaken) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "old");
  const ReadFile file = ReadFile::open(path);
  write_atomically(path, "new");
  std::array<std::byte, 3> bytes{};
  file.read(0, bytes);
  EXPECT_EQ(std::to_integer<char>(bytes[0]), 'o');
  EXPECT_EQ(read_all(path), "new");
}

TEST(ReadFile, SurvivesShortReadsAndInterruptions) {
  const TemporaryFolder folder;
  const std::string text = "some text that comes in pieces";
  const auto path = folder.write("a", text);
  FaultyFileSystem shorter({.at_call = 1, .and_all_later = true, .kind = FaultyFileSystem::Kind::kShortTransfer});
  {
    const ScopedFileSystem scope(shorter);
    EXPECT_EQ(read_all(path), text);
  }
  EXPECT_GT(shorter.journal().size(), 5u);
  for (int64_t k = 1; k <= 3; ++k) {  // open, stat, pread
    FaultyFileSystem interrupted({.at_call = k, .error = EINTR});
    const ScopedFileSystem scope(interrupted);
    if (k == 2) continue;  // fstat is never interrupted
    EXPECT_EQ(read_all(path), text) << "call " << k;
    EXPECT_TRUE(interrupted.fired());
  }
}

TEST(ReadFile, EveryFailingCallIsReported) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "text");
  for (const int error : {EIO, EACCES}) {
    for (int64_t k = 1; k <= 3; ++k) {
      FaultyFileSystem faulty({.at_call = k, .error = error});
      const ScopedFileSystem scope(faulty);
      expect_error(ErrorCode::kReadFailed, {path.string(), error == EIO ? "Input/output" : "Permission"},
                   [&] { read_all(path); });
    }
  }
}

TEST(ReadWholeFile, IsBounded) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "12345");
  EXPECT_EQ(read_whole_file(path, 5), "12345");
  expect_error(ErrorCode::kOutOfMemory, {path.string(), "5 bytes", "at most 4"}, [&] { read_whole_file(path, 4); });
}

TEST(WriteAtomically, WritesAndReplaces) {
  const TemporaryFolder folder;
  write_atomically(folder / "a", "one");
  write_atomically(folder / "a", "two, longer");
  EXPECT_EQ(slurp(folder / "a"), "two, longer");
  EXPECT_EQ(folder.count(), 1u);
}

TEST(WriteAtomically, ReplacesRegularFilesOnly) {
  const TemporaryFolder folder;
  expect_error(ErrorCode::kNotAFile, {"/dev/full"}, [] { write_atomically("/dev/full", "x"); });
  expect_error(ErrorCode::kNotAFile, {folder.path().string()}, [&] { write_atomically(folder.path(), "x"); });
  std::filesystem::create_symlink("elsewhere", folder / "link");
  expect_error(ErrorCode::kNotAFile, {"link"}, [&] { write_atomically(folder / "link", "x"); });
  expect_error(ErrorCode::kWriteFailed, {"none/a", "No such file"}, [&] { write_atomically(folder / "none/a", "x"); });
}

TEST(WriteAtomically, AnExceptionOfTheBodyLeavesTheOldFile) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", "old");
  EXPECT_THROW(write_atomically(path,
                                [](FileWriter& writer) {
                                  writer.write("half");
                                  throw std::runtime_error("stop");
                                }),
               std::runtime_error);
  EXPECT_EQ(slurp(path), "old");
  EXPECT_EQ(folder.count(), 1u);
}

// The k-th call fails, once or from then on, for every k until one run sees no fault.
TEST(WriteAtomically, EveryFailingCallLeavesOldOrNew) {
  const std::string fresh = "the new contents";
  for (const int error : {EIO, ENOSPC, EDQUOT}) {
    for (const bool and_all_later : {false, true}) {
      bool fired = true;
      for (int64_t k = 1; fired; ++k) {
        const TemporaryFolder folder;
        const auto path = folder.write("a", "old");
        FaultyFileSystem faulty({.at_call = k, .error = error, .and_all_later = and_all_later});
        std::string message;
        try {
          const ScopedFileSystem scope(faulty);
          write_atomically(path, [&](FileWriter& writer) {
            writer.write(fresh.substr(0, 5));
            writer.write(fresh.substr(5));
          });
        } catch (const Error& failure) {
          EXPECT_EQ(failure.code(), ErrorCode::kWriteFailed);
          message = failure.status().message();
          EXPECT_NE(message.find(path.string()), std::string::npos) << message;
          EXPECT_NE(message.find(std::generic_category().message(error)), std::string::npos) << message;
        }
        fired = faulty.fired();
        EXPECT_EQ(message.empty(), !fired) << "call " << k;
        const std::string after = slurp(path);
        EXPECT_TRUE(after == "old" || after == fresh) << after;
        EXPECT_TRUE(fired || after == fresh);
        // Where every later call fails, the removal of the temporary file fails too.
        EXPECT_TRUE(and_all_later || folder.count() == 1) << "call " << k;
        ASSERT_LT(k, 50);
      }
    }
  }
}

TEST(WriteAtomically, ShortWritesAndInterruptionsDoNotShow) {
  for (const auto kind : {FaultyFileSystem::Kind::kShortTransfer, FaultyFileSystem::Kind::kError}) {
    for (int64_t k = 2; k <= 5; ++k) {  // create, write, write, fsync
      const TemporaryFolder folder;
      FaultyFileSystem faulty({.at_call = k, .error = EINTR, .kind = kind});
      {
        const ScopedFileSystem scope(faulty);
        write_atomically(folder / "a", [](FileWriter& writer) {
          writer.write("12345");
          writer.write("67890");
        });
      }
      EXPECT_EQ(slurp(folder / "a"), "1234567890");
      EXPECT_EQ(folder.count(), 1u);
    }
  }
}

TEST(WriteAtomically, SurvivesAPowerCutAtAnyMoment) {
  const TemporaryFolder folder;
  const auto path = folder / "a";
  FaultyFileSystem journal;
  {
    const ScopedFileSystem scope(journal);
    write_atomically(path, "contents");
  }
  EXPECT_EQ(testing::durability_problem(journal.journal(), path), "");
}

// The checker itself must see each of the mistakes it is there for.
TEST(DurabilityProblem, SeesPlantedMistakes) {
  using Journal = std::vector<FaultyFileSystem::Call>;
  const Journal good = {{"create", "t", ""}, {"write", "t", ""},   {"fsync", "t", ""},
                        {"close", "t", ""},  {"rename", "t", "a"}, {"fsync_folder", ".", ""}};
  EXPECT_EQ(testing::durability_problem(good, "a"), "");
  Journal no_flush = good;
  no_flush.erase(no_flush.begin() + 2);
  EXPECT_NE(testing::durability_problem(no_flush, "a"), "");
  Journal flush_too_early = good;
  std::swap(flush_too_early[1], flush_too_early[2]);
  EXPECT_NE(testing::durability_problem(flush_too_early, "a"), "");
  Journal no_folder = good;
  no_folder.pop_back();
  EXPECT_NE(testing::durability_problem(no_folder, "a"), "");
  EXPECT_NE(testing::durability_problem({{"create", "a", ""}, {"write", "a", ""}, {"fsync", "a", ""}}, "a"), "");
}

TEST(WriteAtomically, EightThreadsOneFile) {
  const TemporaryFolder folder;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round)
        write_atomically(folder / "a", std::string(1000, static_cast<char>('a' + i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string last = slurp(folder / "a");
  EXPECT_EQ(last, std::string(1000, last.at(0)));
  EXPECT_EQ(folder.count(), 1u);
}

// Killed at an arbitrary moment, the file is one of the versions, whole.
TEST(WriteAtomically, SurvivesKill) {
  const TemporaryFolder folder;
  const auto path = folder.write("a", std::string(1000, 'a'));
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int i = 0;; ++i) write_atomically(path, std::string(100'000, static_cast<char>('a' + i % 26)));
    }
    ::usleep(static_cast<useconds_t>(500 + 311 * round % 5000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string after = slurp(path);
    ASSERT_TRUE(after.size() == 1000 || after.size() == 100'000) << after.size();
    ASSERT_EQ(after, std::string(after.size(), after[0]));
  }
  EXPECT_NO_THROW(write_atomically(path, "still works"));
}

}  // namespace
}  // namespace rtlynx
