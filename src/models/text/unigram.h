#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rtlynx::models {

/// The unigram model: of all segmentations of a word into pieces, the one with the largest sum of scores.
class Unigram {
 public:
  /// Piece i has id i; no two are equal. A character that no piece covers costs 10 more than the worst piece and
  /// becomes `unknown_id`; neighbouring ones become one.
  Unigram(std::vector<std::pair<std::string, double>> pieces, int64_t unknown_id);

  /// Appends the ids of one word, given as UTF-8. Ties go to the segmentation found first, from the left, shorter
  /// pieces first. Linear in the word's length.
  void encode(std::string_view word, std::vector<int64_t>& ids) const;
  /// -1 for a piece that the vocabulary does not have.
  int64_t find(std::string_view piece) const;
  int64_t size() const { return static_cast<int64_t>(pieces_.size()); }

 private:
  struct Entry {
    std::string text;
    double score = 0;
    int64_t id = 0;
  };
  std::vector<Entry> pieces_;  // by text
  int64_t unknown_id_;
  double unknown_score_;
};

}  // namespace rtlynx::models
