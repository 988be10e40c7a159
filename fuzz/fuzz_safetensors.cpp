// The header parser on whole files. What it accepts must hold what its documentation promises.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "io/safetensors_header.h"
#include "rtlynx/status.h"

namespace {

using namespace rtlynx::io;

void require(bool condition) {
  if (!condition) std::abort();
}

void check_promises(const SafetensorsHeader& header, uint64_t data_begin, uint64_t file_size) {
  std::set<std::string_view> names;
  uint64_t reached = data_begin;
  for (const TensorInfo& tensor : header.tensors) {
    require(names.insert(tensor.name).second);
    require(!tensor.name.empty() && tensor.name.size() <= kSafetensorsMaxNameBytes);
    require(tensor.shape.size() <= kSafetensorsMaxRank);
    require(tensor.begin == reached && tensor.end >= tensor.begin);
    require(tensor_bytes(tensor.dtype, tensor.shape) == tensor.end - tensor.begin);
    reached = tensor.end;
  }
  require(reached == file_size);
}

void parse(std::string_view text, uint64_t file_size) {
  try {
    check_promises(parse_safetensors_header(text, file_size, "fuzz"), kSafetensorsLengthBytes + text.size(), file_size);
  } catch (const rtlynx::Error& error) {
    require(error.code() != rtlynx::ErrorCode::kInternal && !error.status().message().empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size < kSafetensorsLengthBytes) return 0;
  uint64_t length = 0;
  for (std::size_t i = kSafetensorsLengthBytes; i-- > 0;) length = length << 8 | data[i];
  const std::string_view rest(reinterpret_cast<const char*>(data) + kSafetensorsLengthBytes,
                              size - kSafetensorsLengthBytes);
  // A length that mutation broke is replaced by one that fits, so that the parser is reached every time.
  if (length > rest.size()) length = rest.size() - rest.size() % 16;
  parse(rest.substr(0, static_cast<std::size_t>(length)), size);
  return 0;
}
