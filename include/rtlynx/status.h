#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace rtlynx {

/// What went wrong; the meanings stand in error_codes.inc.
enum class ErrorCode {
  kOk = 0,
#define RTLYNX_ERROR(code, name, meaning) code,
#include "rtlynx/error_codes.inc"
#undef RTLYNX_ERROR
};

/// The stable printed name, such as "not-found"; "ok" for kOk.
std::string_view error_name(ErrorCode code);
/// One sentence that explains the code.
std::string_view error_meaning(ErrorCode code);

/// Success, or a code with a message that names what was wrong, where, and what was expected.
/// The kernel library (everything in include/rtlynx) reports through Status and Result and never throws.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  /// "not-found: models/x/model_index.json: no such file"
  std::string to_string() const;

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

/// A value or the Status that says why there is none. value() on an error is a bug of the caller and terminates.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : state_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(state_); }
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }

 private:
  std::variant<T, Status> state_;
};

/// What the layers above the kernel library throw (io, models, pipeline, calibration, evaluation).
class Error : public std::runtime_error {
 public:
  explicit Error(Status status) : std::runtime_error(status.to_string()), status_(std::move(status)) {}
  Error(ErrorCode code, std::string message) : Error(Status(code, std::move(message))) {}

  const Status& status() const { return status_; }
  ErrorCode code() const { return status_.code(); }

 private:
  Status status_;
};

/// Throws Error when the status is one; the bridge from the kernel library to the layers above.
void throw_if_error(const Status& status);

}  // namespace rtlynx
