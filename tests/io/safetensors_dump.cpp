// For the comparison with PyPI's safetensors: `safetensors_dump FILE...` prints one line of JSON a file, with the
// error's name or every tensor's type, shape and bytes, then the peak memory; `safetensors_dump --corpus FOLDER` writes
// the files of safetensors_cases() and what is expected of them.
#include <fmt/core.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file.h"
#include "io/safetensors.h"
#include "rtlynx/status.h"
#include "tests/io/safetensors_cases.h"

namespace {

using nlohmann::json;
using rtlynx::Error;

std::string hex(const std::vector<std::byte>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<int>(byte));
  return text;
}

json dump(const std::string& path) {
  try {
    const auto file = rtlynx::io::SafetensorsFile::open(path);
    json tensors = json::object();
    for (const auto& tensor : file.tensors()) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.end - tensor.begin));
      file.read(tensor, bytes);
      tensors[tensor.name] = {
          {"dtype", rtlynx::dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"bytes", hex(bytes)}};
    }
    return {{"code", "ok"}, {"tensors", std::move(tensors)}, {"metadata", file.metadata()}};
  } catch (const Error& error) {
    return {{"code", rtlynx::error_name(error.code())}};
  }
}

void write_corpus(const std::string& folder) {
  json cases = json::array();
  for (const auto& c : rtlynx::testing::safetensors_cases()) {
    rtlynx::write_atomically(folder + "/" + c.name + ".safetensors", c.bytes);
    cases.push_back(
        {{"name", c.name}, {"code", rtlynx::error_name(c.expected)}, {"reference_accepts", c.reference_accepts}});
  }
  rtlynx::write_atomically(folder + "/cases.json", cases.dump(1));
}

/// From /proc: the peak that getrusage() gives counts the parent before exec() as well.
int64_t peak_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "VmHWM:") continue;
    int64_t kib = 0;
    status >> kib;
    return kib;
  }
  return -1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 2 && arguments[0] == "--corpus") {
    write_corpus(arguments[1]);
    return 0;
  }
  for (const std::string& path : arguments) fmt::print("{}\n", dump(path).dump());
  fmt::print("{}\n", json{{"peak_kib", peak_kib()}}.dump());
  return 0;
}
