#include "core/hash64.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace rtlynx {
namespace {

static_assert(std::endian::native == std::endian::little, "the hash loads its words as they lie in memory");

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

template <class Word>
uint64_t load(const std::byte* from) {
  Word word{};
  std::memcpy(&word, from, sizeof(word));
  return word;
}

uint64_t mix(uint64_t lane, uint64_t word) {
  return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

/// The last 0 to 31 bytes.
uint64_t mix_tail(uint64_t hash, std::span<const std::byte> tail) {
  for (; tail.size() >= 8; tail = tail.subspan(8)) {
    hash = std::rotl(hash ^ mix(0, load<uint64_t>(tail.data())), 27) * kPrime1 + kPrime4;
  }
  if (tail.size() >= 4) {
    hash = std::rotl(hash ^ load<uint32_t>(tail.data()) * kPrime1, 23) * kPrime2 + kPrime3;
    tail = tail.subspan(4);
  }
  for (const std::byte byte : tail) hash = std::rotl(hash ^ std::to_integer<uint64_t>(byte) * kPrime5, 11) * kPrime1;
  return hash;
}

uint64_t avalanche(uint64_t hash) {
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace

void Hash64::consume_stripe(const std::byte* stripe) {
  for (std::size_t i = 0; i < lanes_.size(); ++i) lanes_[i] = mix(lanes_[i], load<uint64_t>(stripe + 8 * i));
}

void Hash64::update(std::span<const std::byte> bytes) {
  total_ += bytes.size();
  if (pending_size_ > 0) {
    const std::size_t taken = std::min(bytes.size(), kStripe - pending_size_);
    std::copy_n(bytes.data(), taken, pending_.data() + pending_size_);
    pending_size_ += taken;
    bytes = bytes.subspan(taken);
    if (pending_size_ < kStripe) return;
    consume_stripe(pending_.data());
    pending_size_ = 0;
  }
  for (; bytes.size() >= kStripe; bytes = bytes.subspan(kStripe)) consume_stripe(bytes.data());
  std::copy_n(bytes.data(), bytes.size(), pending_.data());
  pending_size_ = bytes.size();
}

void Hash64::update(uint64_t number) {
  update(std::as_bytes(std::span(&number, 1)));
}

uint64_t Hash64::digest() const {
  uint64_t hash = kPrime5;
  if (total_ >= kStripe) {
    constexpr std::array<int, 4> kRotations = {1, 7, 12, 18};
    hash = 0;
    for (std::size_t i = 0; i < lanes_.size(); ++i) hash += std::rotl(lanes_[i], kRotations[i]);
    for (const uint64_t lane : lanes_) hash = (hash ^ mix(0, lane)) * kPrime1 + kPrime4;
  }
  return avalanche(mix_tail(hash + total_, std::span(pending_).first(pending_size_)));
}

std::string hex16(uint64_t value) {
  return fmt::format("{:016x}", value);
}

}  // namespace rtlynx
