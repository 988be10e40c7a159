#include "io/json.h"

#include <fmt/core.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/alloc.h"
#include "core/file.h"
#include "io/utf8.h"
#include "rtlynx/status.h"

namespace rtlynx::io {
namespace {

// Config has a member of the name json.
using Value = nlohmann::json;

constexpr std::size_t kMaxDepth = 16;
constexpr std::size_t kMaxConfigBytes = 4u << 20;
constexpr std::size_t kMaxConfigText = 4096;

/// Builds the value; stops at what nlohmann's own parser lets pass: duplicate keys and any depth.
class StrictBuilder : public nlohmann::json_sax<Value> {
 public:
  explicit StrictBuilder(Value& root) : root_(root) {}

  const std::string& problem() const { return problem_; }
  /// Where nlohmann noticed a syntax error, in bytes; 0 where the problem is another one.
  std::size_t position() const { return position_; }

  bool null() override { return place(nullptr); }
  bool boolean(bool value) override { return place(value); }
  bool number_integer(number_integer_t value) override { return place(value); }
  bool number_unsigned(number_unsigned_t value) override { return place(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    // An integer past 64 bits would silently become a float, as this one may: Python's int(1e30), which transformers
    // writes for a tokenizer's model_max_length where there is no limit.
    constexpr std::string_view kNoLimit = "1000000000000000019884624838656";
    if (text.find_first_of(".eE") == string_t::npos && text != kNoLimit)
      return stop(fmt::format("integer {} passes 64 bits", quote(text)));
    return place(value);
  }
  bool string(string_t& value) override { return place(std::move(value)); }
  bool binary(binary_t&) override { return stop("binary values are not JSON"); }
  bool start_object(std::size_t) override { return open(Value::object()); }
  bool start_array(std::size_t) override { return open(Value::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Value& object = *open_.back();
    if (object.contains(name)) return stop(fmt::format("duplicate key {}", quote(name)));
    slot_ = &object[name];
    return true;
  }

  bool parse_error(std::size_t position, const std::string& last_token, const Value::exception& error) override {
    position_ = position;
    // nlohmann's text repeats the input and the position; its number tells overflow of a float from syntax.
    constexpr int kNumberOverflow = 406;
    return stop(fmt::format("{} near {}", error.id == kNumberOverflow ? "number out of range" : "syntax error",
                            quote(last_token)));
  }

 private:
  bool stop(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  Value* store(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    *slot_ = std::move(value);
    return slot_;
  }

  bool place(Value value) {
    store(std::move(value));
    return true;
  }

  bool open(Value container) {
    if (open_.size() == kMaxDepth) return stop(fmt::format("nested deeper than {}", kMaxDepth));
    open_.push_back(store(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Value& root_;
  std::vector<Value*> open_;
  Value* slot_ = nullptr;
  std::string problem_;
  std::size_t position_ = 0;
};

[[noreturn]] void bad_json(const std::string& origin, std::string_view what) {
  throw Error(ErrorCode::kBadJson, fmt::format("{}: {}", origin, what));
}

std::string type_of(const Value& value) {
  if (value.is_number_float()) return fmt::format("the number {}", value.get<double>());
  if (value.is_number()) return fmt::format("the number {}", value.dump());
  if (value.is_string()) return fmt::format("the text {}", quote(value.get_ref<const std::string&>(), 40));
  return value.is_boolean() ? (value.get<bool>() ? "true" : "false") : value.type_name();
}

[[noreturn]] void bad_value(const std::string& origin, std::string_view key, std::string_view wanted,
                            const Value* got) {
  throw Error(ErrorCode::kBadConfig, fmt::format("{}: key {}: expected {}, got {}", origin, quote(key), wanted,
                                                 got == nullptr ? "nothing" : type_of(*got)));
}

/// nullptr where the key is absent.
const Value* lookup(const Value& object, std::string_view key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

/// Nothing where the value is not an integer of int64; 2.0 is none, as in Python's json.
std::optional<int64_t> as_integer(const Value& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

bool is_text(const Value& value) {
  return value.is_string() && value.get_ref<const std::string&>().size() <= kMaxConfigText;
}

std::string integer_bounds(int64_t min, int64_t max) {
  return fmt::format("an integer from {} to {}", min, max);
}
std::string text_bounds() {
  return fmt::format("a text of at most {} bytes", kMaxConfigText);
}

}  // namespace

Value parse_json(std::string_view text, const std::string& origin, std::size_t max_bytes) {
  if (text.size() > max_bytes) bad_json(origin, fmt::format("{} bytes, at most {} allowed", text.size(), max_bytes));
  if (const auto at = first_invalid_utf8(text)) bad_json(origin, fmt::format("invalid UTF-8 at byte {}", *at));
  // nlohmann skips a byte order mark and takes NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF")) bad_json(origin, "starts with a byte order mark");
  if (const auto at = text.find('\0'); at != text.npos) bad_json(origin, fmt::format("NUL at byte {}", at));
  return or_out_of_memory(origin, [&] {
    Value value;
    StrictBuilder builder(value);
    if (!Value::sax_parse(text.begin(), text.end(), &builder)) {
      bad_json(origin, builder.position() == 0 ? builder.problem()
                                               : fmt::format("{} at byte {}", builder.problem(), builder.position()));
    }
    return value;
  });
}

Value read_json(const std::filesystem::path& path, std::size_t max_bytes) {
  const ReadFile file = ReadFile::open(path);
  if (file.size() > max_bytes) {
    bad_json(path.string(), fmt::format("{} bytes, at most {} allowed", file.size(), max_bytes));
  }
  const std::string text = or_out_of_memory(path.string(), [&] { return read_whole_file(path, max_bytes); });
  return parse_json(text, path.string(), max_bytes);
}

Config Config::read(const std::filesystem::path& path) {
  return {read_json(path, kMaxConfigBytes), path.string()};
}

Config::Config(Value value, std::string origin) : value_(std::move(value)), origin_(std::move(origin)) {
  if (!value_.is_object()) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: expected a JSON object, got {}", origin_, type_of(value_)));
  }
}

bool Config::has(std::string_view key) const {
  const Value* value = lookup(value_, key);
  return value != nullptr && !value->is_null();
}

int64_t Config::integer(std::string_view key, int64_t min, int64_t max) const {
  const Value* value = lookup(value_, key);
  const auto number = value == nullptr ? std::nullopt : as_integer(*value);
  if (!number || *number < min || *number > max) bad_value(origin_, key, integer_bounds(min, max), value);
  return *number;
}

int64_t Config::integer(std::string_view key, int64_t min, int64_t max, int64_t otherwise) const {
  return has(key) ? integer(key, min, max) : otherwise;
}

double Config::number(std::string_view key, double min, double max) const {
  const Value* value = lookup(value_, key);
  if (value == nullptr || !value->is_number() || !(value->get<double>() >= min) || !(value->get<double>() <= max)) {
    bad_value(origin_, key, fmt::format("a number from {} to {}", min, max), value);
  }
  return value->get<double>();
}

double Config::number(std::string_view key, double min, double max, double otherwise) const {
  return has(key) ? number(key, min, max) : otherwise;
}

bool Config::boolean(std::string_view key) const {
  const Value* value = lookup(value_, key);
  if (value == nullptr || !value->is_boolean()) bad_value(origin_, key, "true or false", value);
  return value->get<bool>();
}

bool Config::boolean(std::string_view key, bool otherwise) const {
  return has(key) ? boolean(key) : otherwise;
}

std::string Config::text(std::string_view key) const {
  const Value* value = lookup(value_, key);
  if (value == nullptr || !is_text(*value)) bad_value(origin_, key, text_bounds(), value);
  return value->get<std::string>();
}

std::string Config::text(std::string_view key, std::string_view otherwise) const {
  return has(key) ? text(key) : std::string(otherwise);
}

std::vector<int64_t> Config::integers(std::string_view key, int64_t min, int64_t max, std::size_t max_count) const {
  const Value* value = lookup(value_, key);
  if (value == nullptr || !value->is_array() || value->size() > max_count) {
    bad_value(origin_, key, fmt::format("an array of at most {} integers", max_count), value);
  }
  std::vector<int64_t> numbers;
  for (const Value& element : *value) {
    const auto number = as_integer(element);
    if (!number || *number < min || *number > max) {
      bad_value(origin_, fmt::format("{}[{}]", key, numbers.size()), integer_bounds(min, max), &element);
    }
    numbers.push_back(*number);
  }
  return numbers;
}

std::vector<std::string> Config::texts(std::string_view key, std::size_t max_count) const {
  const Value* value = lookup(value_, key);
  if (value == nullptr || !value->is_array() || value->size() > max_count) {
    bad_value(origin_, key, fmt::format("an array of at most {} texts", max_count), value);
  }
  std::vector<std::string> texts;
  for (const Value& element : *value) {
    if (!is_text(element)) bad_value(origin_, fmt::format("{}[{}]", key, texts.size()), text_bounds(), &element);
    texts.push_back(element.get<std::string>());
  }
  return texts;
}

}  // namespace rtlynx::io
