#include "models/text/added_tokens.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "io/json.h"
#include "io/utf8.h"
#include "models/text/unicode.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr std::size_t kMaxAddedTokens = 4096;  // FLUX.1's T5 declares 103
constexpr int64_t kMaxTokenId = 1 << 24;

/// A string, or an object with the token's properties; `special` is what an object without the key is taken for.
AddedToken read_token(const nlohmann::json& value, const std::string& origin, bool special) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
  } else {
    const io::Config config(value, origin);
    token.content = config.text("content");
    token.single_word = config.boolean("single_word", false);
    token.lstrip = config.boolean("lstrip", false);
    token.rstrip = config.boolean("rstrip", false);
    token.normalized = config.boolean("normalized", !config.boolean("special", special));
  }
  if (token.content.empty()) throw Error(ErrorCode::kBadConfig, fmt::format("{}: an empty token", origin));
  return token;
}

void sort_by_id(std::vector<AddedToken>& tokens) {
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
}

std::vector<AddedToken> read_declared(const io::Config& config) {
  const nlohmann::json& declared = config.json().at("added_tokens_decoder");
  const std::string origin = config.origin() + ": added_tokens_decoder";
  if (!declared.is_object() || declared.size() > kMaxAddedTokens) {
    throw Error(ErrorCode::kBadConfig,
                fmt::format("{}: expected an object of at most {} tokens", origin, kMaxAddedTokens));
  }
  std::vector<AddedToken> tokens;
  for (const auto& [key, value] : declared.items()) {
    AddedToken token = read_token(value, fmt::format("{}.{}", origin, io::quote(key)), false);
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || token.id < 0 || token.id > kMaxTokenId) {
      throw Error(ErrorCode::kBadConfig,
                  fmt::format("{}: key {}; expected an id from 0 to {}", origin, io::quote(key), kMaxTokenId));
    }
    tokens.push_back(std::move(token));
  }
  sort_by_id(tokens);
  return tokens;
}

void add_new(std::vector<AddedToken>& tokens, AddedToken token) {
  const bool known =
      std::any_of(tokens.begin(), tokens.end(), [&](const auto& t) { return t.content == token.content; });
  if (!known) tokens.push_back(std::move(token));
}

/// The text's last character, as UTF-8; empty for an empty text.
std::string_view last_character(std::string_view text) {
  std::size_t start = text.size();
  while (start > 0 && (static_cast<unsigned char>(text[--start]) & 0xC0) == 0x80) {
  }
  return text.substr(start);
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(code_points(last_character(text)).front());
}

/// The text's first character, as UTF-8; empty for an empty text.
std::string_view first_character(std::string_view text) {
  std::size_t size = std::min<std::size_t>(text.size(), 1);
  while (size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) ++size;
  return text.substr(0, size);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(code_points(first_character(text)).front());
}

std::size_t white_space_before(std::string_view text) {
  const std::size_t size = text.size();
  while (!text.empty() && is_white_space(code_points(last_character(text)).front())) {
    text.remove_suffix(last_character(text).size());
  }
  return size - text.size();
}

std::size_t white_space_after(std::string_view text) {
  const std::size_t size = text.size();
  while (!text.empty() && is_white_space(code_points(first_character(text)).front())) {
    text.remove_prefix(first_character(text).size());
  }
  return size - text.size();
}

}  // namespace

TokenizerConfig TokenizerConfig::read(const std::filesystem::path& folder,
                                      std::map<std::string, std::string> named_defaults,
                                      std::vector<AddedToken> declared) {
  TokenizerConfig result;
  std::map<std::string, AddedToken> named;
  for (auto& [key, content] : named_defaults) named[key].content = content;
  std::vector<AddedToken> additional;
  const auto read_named = [&](const io::Config& config) {
    for (auto& [key, token] : named) {
      if (config.has(key)) token = read_token(config.json().at(key), config.origin() + ": " + key, true);
    }
    if (config.has("additional_special_tokens")) {
      const nlohmann::json& tokens = config.json().at("additional_special_tokens");
      if (!tokens.is_array() || tokens.size() > kMaxAddedTokens) {
        throw Error(ErrorCode::kBadConfig, config.origin() + ": additional_special_tokens is not an array of tokens");
      }
      for (const auto& token : tokens) {
        additional.push_back(read_token(token, config.origin() + ": additional_special_tokens", true));
      }
    }
  };

  bool declares = false;
  if (std::filesystem::exists(folder / "tokenizer_config.json")) {
    const io::Config config = io::Config::read(folder / "tokenizer_config.json");
    // A tokenizer without a limit of its own has 1e30 here.
    result.model_max_length = static_cast<int64_t>(std::min(config.number("model_max_length", 1, 1e31, 1e31), 1e9));
    result.extra_ids = config.integer("extra_ids", 0, 10000, 100);
    for (const char* side : {"padding_side", "truncation_side"}) {
      if (config.text(side, "right") != "right") {
        throw Error(ErrorCode::kBadConfig, fmt::format("{}: {} is not \"right\"", config.origin(), side));
      }
    }
    read_named(config);
    declares = config.has("added_tokens_decoder");
    if (declares) result.added = read_declared(config);
  }
  if (!declares) {
    result.added = std::move(declared);
    if (std::filesystem::exists(folder / "special_tokens_map.json")) {
      read_named(io::Config::read(folder / "special_tokens_map.json"));
    }
  }
  for (auto& [key, token] : named) {
    result.named[key] = token.content;
    add_new(result.added, std::move(token));
  }
  for (AddedToken& token : additional) add_new(result.added, std::move(token));
  return result;
}

std::vector<AddedToken> read_added_tokens(const nlohmann::json& tokenizer, const std::string& origin) {
  std::vector<AddedToken> tokens;
  const auto found = tokenizer.find("added_tokens");
  if (found == tokenizer.end()) return tokens;
  const std::string place = origin + ": added_tokens";
  if (!found->is_array() || found->size() > kMaxAddedTokens) {
    throw Error(ErrorCode::kBadConfig, fmt::format("{}: expected an array of at most {}", place, kMaxAddedTokens));
  }
  for (const nlohmann::json& value : *found) {
    tokens.push_back(read_token(value, place, false));
    tokens.back().id = io::Config(value, place).integer("id", 0, kMaxTokenId);
  }
  sort_by_id(tokens);
  return tokens;
}

std::vector<std::string> contents(const std::vector<AddedToken>& tokens) {
  std::vector<std::string> result;
  for (const AddedToken& token : tokens) result.push_back(token.content);
  return result;
}

void resolve_ids(std::vector<AddedToken>& tokens, int64_t vocab_size,
                 const std::function<int64_t(std::string_view)>& find, const std::filesystem::path& folder) {
  int64_t next = vocab_size;
  for (AddedToken& token : tokens) {
    const int64_t known = find(token.content);
    const int64_t id = known >= 0 ? known : next++;
    if (token.id >= 0 && token.id != id) {
      throw Error(ErrorCode::kBadTokenizer,
                  fmt::format("{}: added token {} is declared with id {} and has {} by the vocabulary", folder.string(),
                              io::quote(token.content), token.id, id));
    }
    token.id = id;
  }
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, Normalizer normalize) : normalize_(std::move(normalize)) {
  for (AddedToken& token : tokens) {
    if (token.normalized) token.content = normalize_(token.content);
    Patterns& patterns = token.normalized ? normalized_ : raw_;
    if (!token.content.empty()) add(patterns, std::move(token));
  }
}

void AddedTokens::add(Patterns& patterns, AddedToken token) {
  std::vector<AddedToken>& bucket = patterns[static_cast<unsigned char>(token.content.front())];
  const auto shorter = std::find_if(bucket.begin(), bucket.end(),
                                    [&](const auto& other) { return other.content.size() < token.content.size(); });
  bucket.insert(shorter, std::move(token));
}

void AddedTokens::split_at(const Patterns& patterns, std::string_view text, std::vector<Segment>& segments) {
  std::size_t done = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const AddedToken* match = nullptr;
    for (const AddedToken& token : patterns[static_cast<unsigned char>(text[at])]) {
      if (text.substr(at).starts_with(token.content)) {
        match = &token;
        break;
      }
    }
    if (match == nullptr) {
      ++at;
      continue;
    }
    std::size_t start = at;
    std::size_t stop = at + match->content.size();
    at = stop;
    if (match->single_word && (ends_with_word(text.substr(0, start)) || starts_with_word(text.substr(stop)))) continue;
    if (match->lstrip) start = std::max(start - white_space_before(text.substr(0, start)), done);
    if (match->rstrip) stop += white_space_after(text.substr(stop));
    if (done < start) segments.push_back({std::string(text.substr(done, start - done)), -1});
    segments.push_back({{}, match->id});
    done = stop;
  }
  if (done < text.size()) segments.push_back({std::string(text.substr(done)), -1});
}

std::vector<AddedTokens::Segment> AddedTokens::split(std::string_view prompt) const {
  std::vector<Segment> raw;
  split_at(raw_, prompt, raw);
  std::vector<Segment> segments;
  for (Segment& segment : raw) {
    if (segment.id >= 0) {
      segments.push_back(std::move(segment));
    } else {
      split_at(normalized_, normalize_(segment.text), segments);
    }
  }
  return segments;
}

}  // namespace rtlynx::models
