#include "rtlynx/status.h"

namespace rtlynx {

std::string_view error_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk: return "ok";
#define RTLYNX_ERROR(enumerator, name, meaning) \
  case ErrorCode::enumerator:                   \
    return name;
#include "rtlynx/error_codes.inc"
#undef RTLYNX_ERROR
  }
  return "unknown";
}

std::string_view error_meaning(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk: return "no error";
#define RTLYNX_ERROR(enumerator, name, meaning) \
  case ErrorCode::enumerator:                   \
    return meaning;
#include "rtlynx/error_codes.inc"
#undef RTLYNX_ERROR
  }
  return "unknown";
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  return std::string(error_name(code_)) + ": " + message_;
}

void throw_if_error(const Status& status) {
  if (!status.ok()) throw Error(status);
}

}  // namespace rtlynx
