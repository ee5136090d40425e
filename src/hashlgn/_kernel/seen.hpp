// The items that a query has seen, and leaves out of its answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hashlgn {

// A hash table of item numbers, at most half full.
class Seen {
 public:
  void set(const int64_t* begin, const int64_t* end) {
    size_ = static_cast<size_t>(end - begin);
    int bits = 3;
    while ((size_t{1} << bits) < 2 * size_) ++bits;
    shift_ = 64 - bits;
    table_.assign(size_t{1} << bits, kEmpty);
    for (; begin < end; ++begin) table_[slot_of(static_cast<uint32_t>(*begin))] = static_cast<uint32_t>(*begin);
  }

  size_t size() const { return size_; }

  // Leaves out scored items that were seen; how many are left.
  size_t without(float* scores, uint32_t* items, size_t count) const {
    if (size_ == 0) return count;
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      scores[kept] = scores[i], items[kept] = items[i];
      kept += table_[slot_of(items[i])] == kEmpty;
    }
    return kept;
  }

 private:
  static constexpr uint32_t kEmpty = 0xffffffffu;  // no catalogue has so many items

  // Where an item is, or would be.
  size_t slot_of(uint32_t item) const {
    size_t slot = item * 0x9E3779B97F4A7C15ull >> shift_;  // Fibonacci hashing: 2^64 over the golden ratio
    while (table_[slot] != item && table_[slot] != kEmpty) slot = (slot + 1) & (table_.size() - 1);
    return slot;
  }

  size_t size_ = 0;
  int shift_ = 61;
  std::vector<uint32_t> table_;
};

}  // namespace hashlgn
