#include "models/text/unigram.h"

#include <algorithm>
#include <limits>

namespace rtlynx::models {
namespace {

std::size_t character_bytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte < 0x80) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

}  // namespace

Unigram::Unigram(std::vector<std::pair<std::string, double>> pieces, int64_t unknown_id) : unknown_id_(unknown_id) {
  constexpr double kUnknownPenalty = 10.0;
  double worst = std::numeric_limits<double>::infinity();
  pieces_.reserve(pieces.size());
  for (auto& [text, score] : pieces) {
    worst = std::min(worst, score);
    pieces_.push_back({std::move(text), score, static_cast<int64_t>(pieces_.size())});
  }
  std::sort(pieces_.begin(), pieces_.end(), [](const Entry& a, const Entry& b) { return a.text < b.text; });
  unknown_score_ = worst - kUnknownPenalty;
}

int64_t Unigram::find(std::string_view piece) const {
  const auto it = std::lower_bound(pieces_.begin(), pieces_.end(), piece,
                                   [](const Entry& entry, std::string_view key) { return entry.text < key; });
  return it != pieces_.end() && it->text == piece ? it->id : -1;
}

void Unigram::encode(std::string_view word, std::vector<int64_t>& ids) const {
  constexpr std::size_t kUnreached = std::numeric_limits<std::size_t>::max();
  struct Best {
    double score = 0;
    int64_t id = 0;
    std::size_t start = kUnreached;
  };
  std::vector<Best> ending_at(word.size() + 1);
  const auto offer = [&](std::size_t start, std::size_t end, double piece_score, int64_t id) {
    const double score = piece_score + ending_at[start].score;
    Best& best = ending_at[end];
    if (best.start == kUnreached || score > best.score) best = {score, id, start};
  };

  for (std::size_t start = 0; start < word.size();) {
    const std::size_t character = character_bytes(word[start]);
    bool covered = false;
    // The pieces that begin with word[start, start + depth) stand side by side; each byte narrows their range.
    auto begin = pieces_.begin();
    auto end = pieces_.end();
    for (std::size_t depth = 0; start + depth < word.size() && begin != end; ++depth) {
      const auto byte = static_cast<unsigned char>(word[start + depth]);
      const auto byte_of = [depth](const Entry& entry) { return static_cast<unsigned char>(entry.text[depth]); };
      begin = std::partition_point(begin, end, [&](const Entry& entry) { return byte_of(entry) < byte; });
      end = std::partition_point(begin, end, [&](const Entry& entry) { return byte_of(entry) == byte; });
      if (begin != end && begin->text.size() == depth + 1) {
        offer(start, start + depth + 1, begin->score, begin->id);
        covered |= depth + 1 == character;
        ++begin;  // the others are longer, so that byte_of may look at their next byte
      }
    }
    if (!covered) offer(start, start + character, unknown_score_, unknown_id_);
    start += character;
  }

  const std::size_t first = ids.size();
  for (std::size_t end = word.size(); end > 0; end = ending_at[end].start) {
    const int64_t id = ending_at[end].id;
    const bool fuses = id == unknown_id_ && ids.size() > first && ids.back() == unknown_id_;
    if (!fuses) ids.push_back(id);
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
}

}  // namespace rtlynx::models
