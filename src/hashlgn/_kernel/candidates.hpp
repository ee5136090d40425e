// Candidates, the items that the scan lets through: scored exactly, kept if they reach the threshold, and sorted. Written once for every instruction set,
// which may bring its own way of any of it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace hashlgn {

constexpr int kBlock = 128;   // items in a block
constexpr int kRow = 64;      // bytes of one sub-code of a block
constexpr int kFour = 4;      // items scored exactly at a time, wherever they are
constexpr int kRegister = 8;  // keys that may be written beyond the last

#define HASHLGN_INLINE inline __attribute__((always_inline))

// A hit as one number that sorts as hits do: by score, then by falling item.
inline uint64_t key_of(float score, uint32_t item) {
  score += 0.0f;  // -0 is 0
  uint32_t bits;
  __builtin_memcpy(&bits, &score, 4);
  bits ^= static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(~item);
}

inline float score_of(uint64_t key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
  float score;
  __builtin_memcpy(&score, &bits, 4);
  return score;
}

inline uint32_t item_of(uint64_t key) { return ~static_cast<uint32_t>(key); }

template <class V>
struct Rescoring {
  // In the order of the sub-codes, in float64: the score as it is defined, bit for bit.
  static void sums(const uint8_t* rows, int subcodes, const double* table, const uint32_t* slots, size_t count, double* out) {
    for (size_t i = 0, taken = 0; i < count; i += taken) {
      if constexpr (requires { V::sums(rows, subcodes, table, slots, count, out); }) {
        taken = V::sums(rows, subcodes, table, slots + i, count - i, out + i);  // of neighbours, which share their rows
        if (taken) continue;
      }
      taken = std::min<size_t>(count - i, kFour);
      four(rows, subcodes, table, slots + i, taken, out + i);
    }
  }

  static HASHLGN_INLINE void four(const uint8_t* rows, int subcodes, const double* table, const uint32_t* slots, size_t count,
                                  double* out) {
    const uint8_t* row[kFour];
    int shift[kFour];
    for (size_t i = 0; i < kFour; ++i) {
      const uint32_t slot = slots[std::min(i, count - 1)];  // the last again, to the full number
      row[i] = rows + slot / kBlock * static_cast<size_t>(subcodes) * kRow + slot % kRow;
      shift[i] = slot % kBlock < kRow ? 0 : 4;
    }
    double sum[kFour] = {};
    for (int m = 0; m < subcodes; ++m, table += 16) {
      for (int i = 0; i < kFour; ++i) sum[i] += table[static_cast<uint32_t>(row[i][m * kRow]) >> shift[i] & 15];
    }
    std::copy(sum, sum + count, out);
  }

  static size_t keep_scores(const double* sums, const double* scales, float threshold, size_t count, uint32_t* slots,
                       float* scores) {
    if constexpr (requires { V::keep_scores(sums, scales, threshold, count, slots, scores); }) {
      return V::keep_scores(sums, scales, threshold, count, slots, scores);
    }
    size_t kept = 0;  // without branches: about half of them are
    for (size_t i = 0; i < count; ++i) {
      scores[kept] = static_cast<float>(scales ? sums[i] * scales[i] : sums[i]);
      slots[kept] = slots[i];
      kept += scores[kept] >= threshold;
    }
    return kept;
  }

  static size_t keys(const float* scores, const uint32_t* items, size_t count, uint64_t least, uint64_t* out) {
    if constexpr (requires { V::keys(scores, items, count, least, out); }) {
      return V::keys(scores, items, count, least, out);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      out[kept] = key_of(scores[i], items[i]);
      kept += out[kept] > least;
    }
    return kept;
  }

  // Keys that are at least the pivot to the front, the others behind them, without branches; how many come to the front: all
  // only where keys are equal, as those of a damaged index may be. The pivot is the median of keys at the quarters.
  static size_t split(uint64_t* keys, size_t count, uint64_t* spare) {
    const uint64_t a = keys[count / 4], b = keys[count / 2], c = keys[count - 1 - count / 4];
    const uint64_t pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    size_t front = 0;
    if constexpr (requires { V::split(keys, count, pivot, spare); }) {
      front = V::split(keys, count, pivot, spare);
    } else {
      size_t back = 0;
      for (size_t i = 0; i < count; ++i) {
        const uint64_t key = keys[i];
        keys[front] = spare[back] = key;
        front += key >= pivot, back += key < pivot;
      }
    }
    std::copy(spare, spare + count - front, keys + front);
    return front;
  }

  // Splits that a good pivot never needs; after so many the standard library goes on, whose time is bounded.
  static int most_splits(size_t count) { return 2 * std::bit_width(count); }

  static uint64_t best(uint64_t* keys, size_t count, size_t k, uint64_t* spare) {
    for (int splits = most_splits(count); count > 16; --splits) {
      const size_t front = splits ? split(keys, count, spare) : count;
      if (front == count) {
        std::nth_element(keys, keys + k - 1, keys + count, std::greater<>());
        return keys[k - 1];
      }
      if (front < k) keys += front, count -= front, k -= front;
      else count = front;
    }
    sort_few(keys, count, spare);
    return keys[k - 1];
  }

  static void sort(uint64_t* keys, size_t count, uint64_t* spare) { sort(keys, count, spare, most_splits(count)); }

  static void sort(uint64_t* keys, size_t count, uint64_t* spare, int splits) {
    for (; count > kFew; --splits) {
      const size_t front = splits > 0 ? split(keys, count, spare) : count;
      if (front == count) return std::sort(keys, keys + count, std::greater<>());
      sort(keys, front, spare, splits - 1);
      keys += front, count -= front;
    }
    sort_few(keys, count, spare);
  }

  static void sort_few(uint64_t* keys, size_t count, uint64_t* spare) {
    if constexpr (requires { V::sort(keys, count); }) {
      V::sort(keys, count);
    } else {
      // Each is put where the number of greater ones says.
      std::copy(keys, keys + count, spare);
      for (size_t i = 0; i < count; ++i) {
        const uint64_t key = spare[i];
        size_t greater = 0;
        for (size_t j = 0; j < count; ++j) greater += spare[j] > key || (spare[j] == key && j < i);
        keys[greater] = key;
      }
    }
  }

  // Keys that are sorted at once.
  static constexpr size_t kFew = [] {
    if constexpr (requires { V::few; }) return V::few;
    else return 48;
  }();
};

}  // namespace hashlgn
