#include "models/text/unicode.h"

#include <fmt/core.h>
#include <unicode/ubrk.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/uset.h>
#include <unicode/ustring.h>
#include <unicode/utext.h>

#include <memory>

#include "models/text/unicode_since_15.h"
#include "rtlynx/status.h"

namespace rtlynx::models {
namespace {

void check(UErrorCode status, const char* what) {
  if (U_FAILURE(status)) throw Error(ErrorCode::kInternal, fmt::format("ICU: {}: {}", what, u_errorName(status)));
}

UChar32 to_icu(char32_t code_point) {
  return static_cast<UChar32>(code_point);
}

/// Also of code points that are not assigned: a later ICU must not decide on them.
bool is_newer_than_15(char32_t code_point) {
  constexpr char32_t kFirstAfterUnicode1 = 0x0220;  // spares nearly every prompt the look-up
  if (code_point < kFirstAfterUnicode1) return false;
  UVersionInfo age = {};
  u_charAge(to_icu(code_point), age);
  return age[0] == 0 || age[0] > 15 || (age[0] == 15 && age[1] > 0);
}

/// NFC as of Unicode 9: the normaliser of tokenizers 0.23 (unicode-normalization-alignments 0.1.12) leaves later
/// characters alone. Composition of the earlier ones has not changed since.
const UNormalizer2* nfc_of_unicode_9() {
  static const UNormalizer2* const normalizer = [] {
    UErrorCode status = U_ZERO_ERROR;
    const std::u16string pattern = u"[:age=9.0:]";
    // Both live as long as the process.
    USet* const known = uset_openPattern(pattern.data(), static_cast<int32_t>(pattern.size()), &status);
    check(status, "set of Unicode 9");
    uset_freeze(known);
    const UNormalizer2* const filtered = unorm2_openFiltered(unorm2_getNFCInstance(&status), known, &status);
    check(status, "NFC data");
    return filtered;
  }();
  return normalizer;
}

std::u16string to_utf16(std::string_view utf8) {
  std::u16string text(utf8.size(), u'\0');  // never longer than the UTF-8 form
  int32_t length = 0;
  UErrorCode status = U_ZERO_ERROR;
  u_strFromUTF8(text.data(), static_cast<int32_t>(text.size()), &length, utf8.data(), static_cast<int32_t>(utf8.size()),
                &status);
  check(status, "from UTF-8");
  text.resize(static_cast<std::size_t>(length));
  return text;
}

std::string to_utf8(const std::u16string& text) {
  std::string utf8(text.size() * 3, '\0');  // a unit takes at most 3 bytes, a surrogate pair 4
  int32_t length = 0;
  UErrorCode status = U_ZERO_ERROR;
  u_strToUTF8(utf8.data(), static_cast<int32_t>(utf8.size()), &length, text.data(), static_cast<int32_t>(text.size()),
              &status);
  check(status, "to UTF-8");
  utf8.resize(static_cast<std::size_t>(length));
  return utf8;
}

/// Whether a mark since Unicode 15 stands at byte `at` > 0 and belongs to the cluster of the character before it.
bool is_newer_mark_at(std::string_view utf8, int32_t at) {
  int32_t start = at - 1;
  while (start > 0 && (static_cast<unsigned char>(utf8[static_cast<std::size_t>(start)]) & 0xC0) == 0x80) --start;
  UChar32 previous = 0;
  U8_NEXT_UNSAFE(utf8.data(), start, previous);
  const int32_t kind = u_getIntPropertyValue(previous, UCHAR_GRAPHEME_CLUSTER_BREAK);
  if (kind == U_GCB_CONTROL || kind == U_GCB_CR || kind == U_GCB_LF) return false;
  UChar32 mark = 0;
  int32_t end = at;
  U8_NEXT_UNSAFE(utf8.data(), end, mark);
  return find_range(kMarksSince15, static_cast<char32_t>(mark)) != nullptr;
}

}  // namespace

std::u32string code_points(std::string_view utf8) {
  std::u32string result;
  result.reserve(utf8.size());
  const int32_t size = static_cast<int32_t>(utf8.size());
  for (int32_t i = 0; i < size;) {
    UChar32 code_point = 0;
    U8_NEXT_UNSAFE(utf8.data(), i, code_point);
    result.push_back(static_cast<char32_t>(code_point));
  }
  return result;
}

void append_utf8(std::string& utf8, char32_t code_point) {
  char bytes[4] = {};
  std::size_t size = 0;
  U8_APPEND_UNSAFE(bytes, size, code_point);
  utf8.append(bytes, size);
}

bool is_letter(char32_t code_point) {
  if (is_newer_than_15(code_point)) return find_range(kLettersSince15, code_point) != nullptr;
  return (U_GET_GC_MASK(to_icu(code_point)) & U_GC_L_MASK) != 0;
}

bool is_number(char32_t code_point) {
  if (is_newer_than_15(code_point)) return find_range(kNumbersSince15, code_point) != nullptr;
  return (U_GET_GC_MASK(to_icu(code_point)) & U_GC_N_MASK) != 0;
}

bool is_white_space(char32_t code_point) {
  return u_isUWhiteSpace(to_icu(code_point)) != 0;
}

bool is_word(char32_t code_point) {
  const uint32_t mask = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  const UChar32 c = to_icu(code_point);
  return (U_GET_GC_MASK(c) & mask) != 0 || u_isUAlphabetic(c) != 0 || u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL) != 0;
}

void append_lower(std::string& utf8, char32_t code_point) {
  constexpr char32_t kCapitalIWithDot = 0x130;  // the one letter whose lower case has two code points, i and U+0307
  if (code_point == kCapitalIWithDot) {
    utf8 += "i\xCC\x87";
  } else {
    const CodePointRange* newer = find_range(kCapitalsSince15, code_point);
    append_utf8(utf8, static_cast<char32_t>(newer != nullptr ? to_icu(code_point) + newer->to_lower
                                                             : u_tolower(to_icu(code_point))));
  }
}

std::string nfc(std::string_view utf8) {
  UErrorCode status = U_ZERO_ERROR;
  const std::u16string text = to_utf16(utf8);
  std::u16string composed(text.size() * 3 + 1, u'\0');  // UAX 15: NFC grows UTF-16 at most threefold
  const int32_t length = unorm2_normalize(nfc_of_unicode_9(), text.data(), static_cast<int32_t>(text.size()),
                                          composed.data(), static_cast<int32_t>(composed.size()), &status);
  check(status, "NFC");
  composed.resize(static_cast<std::size_t>(length));
  return to_utf8(composed);
}

std::vector<std::size_t> grapheme_boundaries(std::string_view utf8) {
  UErrorCode status = U_ZERO_ERROR;
  const std::unique_ptr<UText, decltype(&utext_close)> text(
      utext_openUTF8(nullptr, utf8.data(), static_cast<int64_t>(utf8.size()), &status), &utext_close);
  const std::unique_ptr<UBreakIterator, decltype(&ubrk_close)> breaks(
      ubrk_open(UBRK_CHARACTER, "en", nullptr, 0, &status), &ubrk_close);
  if (U_SUCCESS(status)) ubrk_setUText(breaks.get(), text.get(), &status);
  check(status, "grapheme clusters");
  std::vector<std::size_t> boundaries;
  for (int32_t at = ubrk_first(breaks.get()); at != UBRK_DONE; at = ubrk_next(breaks.get())) {
    if (at > 0 && static_cast<std::size_t>(at) < utf8.size() && is_newer_mark_at(utf8, at)) continue;
    boundaries.push_back(static_cast<std::size_t>(at));
  }
  return boundaries;
}

}  // namespace rtlynx::models
