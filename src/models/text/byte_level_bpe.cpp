#include "models/text/byte_level_bpe.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <unordered_set>

#include "core/file.h"
#include "io/json.h"
#include "io/utf8.h"
#include "models/text/unicode.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

constexpr std::size_t kMaxFileBytes = 16u << 20;  // CLIP's vocabulary takes 1 MB, the largest public ones 3 MB
constexpr int64_t kMaxTokenId = 1 << 24;
constexpr int32_t kNone = -1;

[[noreturn]] void refuse(const std::string& place, const std::string& problem) {
  throw Error(ErrorCode::kBadTokenizer, fmt::format("{}: {}", place, problem));
}

/// GPT-2's spelling of a byte: itself where it is printable and no space, else the next free character from U+0100 on.
std::array<std::string, 256> byte_spellings() {
  std::array<std::string, 256> spellings;
  char32_t next_free = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    append_utf8(spellings[byte], printable ? byte : next_free++);
  }
  return spellings;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

/// The parts of "a b"; nothing unless there are two, with one space between them.
std::optional<std::pair<std::string, std::string>> split_pair(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
      line.find(' ', space + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return std::pair(std::string(line.substr(0, space)), std::string(line.substr(space + 1)));
}

}  // namespace

nlohmann::json read_tokenizer_json(const std::filesystem::path& path, std::size_t max_bytes) {
  try {
    return io::read_json(path, max_bytes);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBadJson) throw Error(ErrorCode::kBadTokenizer, error.status().message());
    throw;
  }
}

ByteLevelBpe::ByteLevelBpe(const std::filesystem::path& folder, std::string suffix)
    : vocab_origin_((folder / "vocab.json").string()),
      merges_origin_((folder / "merges.txt").string()),
      suffix_(std::move(suffix)) {
  read_vocab(read_tokenizer_json(folder / "vocab.json", kMaxFileBytes));
  read_merges(std::string_view(read_whole_file(folder / "merges.txt", kMaxFileBytes)));
}

ByteLevelBpe::ByteLevelBpe(const nlohmann::json& model, const std::string& origin, std::string suffix)
    : vocab_origin_(origin + ".vocab"), merges_origin_(origin + ".merges"), suffix_(std::move(suffix)) {
  for (const char* key : {"vocab", "merges"}) {
    if (!model.contains(key)) refuse(origin, fmt::format("{} is missing", key));
  }
  read_vocab(model.at("vocab"));
  read_merges(model.at("merges"));
}

void ByteLevelBpe::read_vocab(const nlohmann::json& vocab) {
  if (!vocab.is_object() || vocab.empty()) refuse(vocab_origin_, "expected an object that maps tokens to ids");
  std::unordered_map<int64_t, std::string_view> owners;
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxTokenId) {
      refuse(vocab_origin_, fmt::format("token {} has id {}; expected an integer from 0 to {}", io::quote(token),
                                        io::quote(id.dump(-1, ' ', true)), kMaxTokenId));
    }
    const auto [entry, is_new] = vocab_.emplace(token, id.get<int32_t>());
    const auto [owner, is_free] = owners.emplace(id.get<int64_t>(), entry->first);
    if (!is_free) {
      refuse(vocab_origin_, fmt::format("tokens {} and {} have the same id {}", io::quote(owner->second),
                                        io::quote(token), id.get<int64_t>()));
    }
  }
  const std::array<std::string, 256> spellings = byte_spellings();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = static_cast<int32_t>(find(spellings[byte]));
    last_byte_ids_[byte] = static_cast<int32_t>(find(spellings[byte] + suffix_));
  }
}

void ByteLevelBpe::add_merge(const std::string& left, const std::string& right, const std::string& place) {
  for (const std::string& token : {left, right, left + right}) {
    if (find(token) < 0) refuse(place, fmt::format("token {} is not in the vocabulary", io::quote(token)));
  }
  const auto rank = static_cast<uint32_t>(merges_.size());
  if (!merges_.emplace(pair_key(vocab_.at(left), vocab_.at(right)), Merge{rank, vocab_.at(left + right)}).second) {
    refuse(place, fmt::format("{} stands there a second time", io::quote(left + " " + right)));
  }
}

void ByteLevelBpe::read_merges(std::string_view text) {
  std::size_t line_number = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    std::string_view line = text.substr(start, end - start);
    start = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version")) continue;
    const std::string place = fmt::format("{}: line {}", merges_origin_, line_number);
    const auto pair = split_pair(line);
    if (!pair) refuse(place, fmt::format("{}; expected two tokens with one space between them", io::quote(line)));
    add_merge(pair->first, pair->second, place);
  }
}

void ByteLevelBpe::read_merges(const nlohmann::json& merges) {
  if (!merges.is_array()) refuse(merges_origin_, "expected an array of pairs");
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", merges_origin_, i);
    const nlohmann::json& merge = merges[i];
    std::optional<std::pair<std::string, std::string>> pair;
    if (merge.is_string()) {
      pair = split_pair(merge.get_ref<const std::string&>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      pair = {merge[0].get<std::string>(), merge[1].get<std::string>()};
    }
    if (!pair) refuse(place, "expected two tokens");
    add_merge(pair->first, pair->second, place);
  }
}

void ByteLevelBpe::refuse_unreachable(const std::vector<std::string>& special) const {
  std::unordered_set<int32_t> reachable(byte_ids_.begin(), byte_ids_.end());
  reachable.insert(last_byte_ids_.begin(), last_byte_ids_.end());
  for (const auto& [key, merge] : merges_) reachable.insert(merge.result);
  for (const std::string& token : special) reachable.insert(static_cast<int32_t>(find(token)));
  int64_t count = 0;
  std::pair<int32_t, std::string> first(INT32_MAX, "");
  for (const auto& [token, id] : vocab_) {
    if (reachable.contains(id)) continue;
    ++count;
    if (id < first.first) first = {id, token};
  }
  if (count > 0) {
    refuse(merges_origin_,
           fmt::format("{} tokens of the vocabulary, the first {} (id {}), are the result of no merge: is it cut off?",
                       count, io::quote(first.second), first.first));
  }
}

void ByteLevelBpe::refuse_missing_bytes() const {
  const auto missing = std::find(byte_ids_.begin(), byte_ids_.end(), kNone);
  if (missing != byte_ids_.end()) {
    refuse(vocab_origin_, fmt::format("no token for the byte {}", missing - byte_ids_.begin()));
  }
}

void ByteLevelBpe::set_unknown(int64_t id) {
  for (auto* ids : {&byte_ids_, &last_byte_ids_}) {
    std::replace(ids->begin(), ids->end(), kNone, static_cast<int32_t>(id));
  }
}

int64_t ByteLevelBpe::find(std::string_view token) const {
  const auto it = vocab_.find(std::string(token));
  return it == vocab_.end() ? kNone : it->second;
}

const ByteLevelBpe::Merge* ByteLevelBpe::find_merge(int32_t left, int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void ByteLevelBpe::encode(std::string_view word, std::vector<int64_t>& ids) const {
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;  // of the left symbol
    int32_t result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  constexpr int32_t kMergedAway = -2;
  const auto size = static_cast<int32_t>(word.size());
  std::vector<Symbol> symbols(word.size());
  for (int32_t i = 0; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
    const bool is_last = i + 1 == size;
    symbols[static_cast<std::size_t>(i)] = {is_last ? last_byte_ids_[byte] : byte_ids_[byte], i - 1,
                                            is_last ? kNone : i + 1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [&](int32_t position) -> Symbol& { return symbols[static_cast<std::size_t>(position)]; };
  const auto offer = [&](int32_t left, int32_t right) {
    if (const Merge* merge = find_merge(at(left).id, at(right).id)) queue.push({merge->rank, left, merge->result});
  };
  for (int32_t i = 0; i + 1 < size; ++i) offer(i, i + 1);

  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = at(best.position);
    if (left.id == kMergedAway || left.next == kNone) continue;
    Symbol& right = at(left.next);
    // An entry is stale where either symbol has changed since it was put in.
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->result != best.result) continue;
    left.id = best.result;
    left.next = right.next;
    right.id = kMergedAway;
    if (left.next != kNone) {
      at(left.next).previous = best.position;
      offer(best.position, left.next);
    }
    if (left.previous != kNone) offer(left.previous, best.position);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kMergedAway) ids.push_back(symbol.id);
  }
}

}  // namespace rtlynx::models
