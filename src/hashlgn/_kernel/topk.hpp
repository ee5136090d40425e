// The best items that a query has met so far, and the threshold that the next one must reach.
#pragma once

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace hashlgn {

// A hit as one number that sorts as hits do: by score, then by falling item.
inline uint64_t key_of(float score, uint32_t item) {
  score += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  bits ^= static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(~item);
}

inline float score_of(uint64_t key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
  float score;
  std::memcpy(&score, &bits, 4);
  return score;
}

inline uint32_t item_of(uint64_t key) { return ~static_cast<uint32_t>(key); }

// Different keys greater than a pivot, the median of three, to the front; how many. Without branches that depend on keys, which makes it
// three times as fast as the standard library on some thousand keys.
inline size_t split(uint64_t* keys, size_t count) {
  const uint64_t a = keys[count / 4], b = keys[count / 2], c = keys[count - 1 - count / 4];
  const uint64_t pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
  size_t front = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t key = keys[i];
    keys[i] = keys[front], keys[front] = key;
    front += key > pivot;
  }
  return front;
}

constexpr size_t kFew = 32;  // keys that the standard library sorts as fast

// Splits that good pivots never need; after so many the standard library goes on, whose time is bounded.
inline int most_splits(size_t count) { return 2 * std::bit_width(count); }

// Brings the k greatest keys to the front.
inline void select_keys(uint64_t* keys, size_t count, size_t k) {
  for (int splits = most_splits(count); count > kFew && splits > 0; --splits) {
    const size_t front = split(keys, count);
    if (front >= k) count = front;
    else keys += front, count -= front, k -= front;
  }
  std::nth_element(keys, keys + k - 1, keys + count, std::greater<>());
}

// Greatest first.
inline void sort_keys(uint64_t* keys, size_t count, int splits) {
  for (; count > kFew && splits > 0; --splits) {
    const size_t front = split(keys, count);
    sort_keys(keys, front, splits - 1);
    keys += front, count -= front;
  }
  std::sort(keys, keys + count, std::greater<>());
}

// With k = 0, every item over a given threshold instead.
class TopK {
 public:
  std::vector<uint64_t> hits;  // keys, in no order

  void start(size_t k, double threshold) {
    k_ = k, worst_ = 0;
    hits.clear();
    set_threshold(k ? -std::numeric_limits<float>::infinity() : least_above(threshold));
  }

  size_t k() const { return k_; }
  bool full() const { return k_ != 0 && hits.size() >= k_; }
  bool bounded() const { return k_ == 0 || worst_ != 0; }  // whether there is a threshold
  bool positive() const { return least_unrounded_ > 0; }

  // The least score of a hit.
  float least_score() const { return least_score_; }

  // The least sum of a hit with a scale in [smallest, largest].
  double least_sum(double smallest, double largest) const { return least_unrounded_ / (positive() ? largest : smallest); }

  // Scored items that passed the filters; how many of them are hits for now: one that ties with the k-th may lose by its number.
  size_t push(const float* scores, const uint32_t* items, size_t count) {
    const size_t before = hits.size();
    hits.resize(before + count);
    uint64_t* out = hits.data() + before;
    for (size_t i = 0; i < count; ++i) {
      *out = key_of(scores[i], items[i]);
      out += *out > worst_;
    }
    const size_t kept = static_cast<size_t>(out - hits.data()) - before;
    hits.resize(before + kept);
    if (k_ != 0 && hits.size() >= k_ + k_ / 4 + kSlack) select();
    return kept;
  }

  // Keeps the k best, and raises the threshold to the worst of them.
  void select() {
    if (!full() || (hits.size() == k_ && worst_ != 0)) return;  // nothing is new
    select_keys(hits.data(), hits.size(), k_);
    worst_ = hits[k_ - 1];
    hits.resize(k_);
    set_threshold(score_of(worst_));
  }

  // From here on, items have greater numbers than all before: they lose every tie with the hits.
  void lose_ties() {
    if (worst_ && full()) set_unrounded(std::nextafter(least_score_, std::numeric_limits<float>::infinity()));
  }

  void sort() {
    select();
    sort_keys(hits.data(), hits.size(), most_splits(hits.size()));
  }

 private:
  static constexpr size_t kSlack = 16;  // hits beyond 1.25 k before the best are selected: rare enough for small k too

  // The smallest float32 score over a threshold.
  static float least_above(double threshold) {
    const float near = static_cast<float>(std::clamp(threshold, -static_cast<double>(FLT_MAX), static_cast<double>(FLT_MAX)));
    return near > threshold ? near : std::nextafter(near, std::numeric_limits<float>::infinity());
  }

  void set_threshold(float score) { least_score_ = score, set_unrounded(score); }

  // A float64 score that is rounded to `score` or more is not smaller than this.
  void set_unrounded(float score) {
    const double wide = score;
    least_unrounded_ = std::isinf(score) ? wide : wide - std::fabs(wide) * 0x1.0001p-24 - 0x1p-149;
  }

  size_t k_ = 0;
  uint64_t worst_ = 0;  // key of the k-th hit; 0 while there are fewer
  float least_score_ = 0;
  double least_unrounded_ = 0;
};

}  // namespace hashlgn
