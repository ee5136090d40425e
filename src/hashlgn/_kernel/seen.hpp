// The items that a query has seen, and leaves out of its answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hashlgn {

// Items that a query has seen; asked about an item, as a hash table of their numbers.
class Seen {
 public:
  void set(const int64_t* begin, const int64_t* end) { begin_ = begin, end_ = end, table_.clear(); }

  // To be called before `has`: some searches never ask.
  void prepare() {
    if (begin_ == end_ || !table_.empty()) return;
    shift_ = 64 - 3;
    while ((size_t{1} << (64 - shift_)) < 2 * size()) --shift_;
    table_.assign(size_t{1} << (64 - shift_), kEmpty);
    for (const int64_t* item = begin_; item < end_; ++item) {
      size_t slot = place_of(static_cast<uint32_t>(*item));
      while (table_[slot] != kEmpty) slot = (slot + 1) & (table_.size() - 1);
      table_[slot] = static_cast<uint32_t>(*item);
    }
  }

  bool has(uint32_t item) const {
    if (table_.empty()) return false;
    size_t slot = place_of(item);
    while (table_[slot] != item && table_[slot] != kEmpty) slot = (slot + 1) & (table_.size() - 1);
    return table_[slot] == item;
  }

  // Leaves out scored items that were seen; how many are left.
  size_t without(float* scores, uint32_t* items, size_t count) const {
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      scores[kept] = scores[i], items[kept] = items[i];
      kept += !has(items[i]);
    }
    return kept;
  }

  const int64_t* begin() const { return begin_; }
  const int64_t* end() const { return end_; }
  size_t size() const { return static_cast<size_t>(end_ - begin_); }

 private:
  static constexpr uint32_t kEmpty = 0xffffffffu;  // no catalogue has so many items

  size_t place_of(uint32_t item) const { return item * 0x9E3779B97F4A7C15ull >> shift_; }

  const int64_t *begin_ = nullptr, *end_ = nullptr;
  std::vector<uint32_t> table_;
  int shift_ = 0;
};

}  // namespace hashlgn
