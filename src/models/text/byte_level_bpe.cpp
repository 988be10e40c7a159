#include "models/text/byte_level_bpe.h"

#include <fmt/core.h>

#include <algorithm>
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

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& problem) {
  throw Error(ErrorCode::kBadTokenizer, fmt::format("{}: {}", path.string(), problem));
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

}  // namespace

ByteLevelBpe::ByteLevelBpe(const std::filesystem::path& folder, std::string suffix) : suffix_(std::move(suffix)) {
  read_vocab(folder / "vocab.json");
  const std::array<std::string, 256> spellings = byte_spellings();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = static_cast<int32_t>(find(spellings[byte]));
    last_byte_ids_[byte] = static_cast<int32_t>(find(spellings[byte] + suffix_));
  }
  read_merges(folder / "merges.txt");
}

void ByteLevelBpe::read_vocab(const std::filesystem::path& path) {
  nlohmann::json json;
  try {
    json = io::read_json(path, kMaxFileBytes);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBadJson) throw Error(ErrorCode::kBadTokenizer, error.status().message());
    throw;
  }
  if (!json.is_object() || json.empty()) refuse(path, "expected an object that maps tokens to ids");
  std::unordered_map<int64_t, std::string> owners;
  for (const auto& [token, id] : json.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxTokenId) {
      refuse(path, fmt::format("token {} has id {}; expected an integer from 0 to {}", io::quote(token),
                               io::quote(id.dump(-1, ' ', true)), kMaxTokenId));
    }
    const auto [owner, is_new] = owners.emplace(id.get<int64_t>(), token);
    if (!is_new) {
      refuse(path, fmt::format("tokens {} and {} have the same id {}", io::quote(owner->second), io::quote(token),
                               id.get<int64_t>()));
    }
    vocab_.emplace(token, id.get<int32_t>());
  }
}

void ByteLevelBpe::read_merges(const std::filesystem::path& path) {
  const std::string text = read_whole_file(path, kMaxFileBytes);
  uint32_t rank = 0;
  std::size_t line_number = 0;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    std::string_view line(text.data() + start, end - start);
    start = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version")) continue;
    const auto refuse_line = [&](const std::string& problem) {
      refuse(path, fmt::format("line {}: {}", line_number, problem));
    };
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos) {
      refuse_line(fmt::format("{}; expected two tokens with one space between them", io::quote(line)));
    }
    const std::string left(line.substr(0, space));
    const std::string right(line.substr(space + 1));
    for (const std::string& token : {left, right, left + right}) {
      if (find(token) < 0) refuse_line(fmt::format("token {} is not in vocab.json", io::quote(token)));
    }
    const uint64_t key = pair_key(vocab_.at(left), vocab_.at(right));
    if (!merges_.emplace(key, Merge{rank++, vocab_.at(left + right)}).second) {
      refuse_line(fmt::format("{} stands there a second time", io::quote(line)));
    }
  }
}

void ByteLevelBpe::refuse_unreachable(const std::filesystem::path& folder,
                                      const std::vector<std::string>& special) const {
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
    refuse(folder / "merges.txt",
           fmt::format("{} tokens of vocab.json, the first {} (id {}), are the result of no line: is the file cut off?",
                       count, io::quote(first.second), first.first));
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
