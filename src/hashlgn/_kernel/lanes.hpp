// The scan of blocks of codes, written once for every instruction set.
//
// A block is 128 items, sub-code after sub-code: row m is 64 bytes, and byte j of it holds sub-code m of item j in its low half and
// of item j + 64 in its high half. A query is a lookup table (LUT) of 16 bytes per sub-code. A value is the sum of an item's
// entries: sub-codes are added eight at a time in bytes, and these sums are averaged in pairs, rounded upwards, so that
//
//     value_i ≥ Σ_m table[m, code_im] / 2^levels,    levels = ceil(log2(subcodes / 8)), at least 0,
//
// whatever the sub-codes: a value never hides an item. The caller sees to it that eight entries add up to at most 255.
#pragma once

#include <cstring>

#include "candidates.hpp"
#include "products.hpp"

namespace hashlgn {

constexpr int kGroup = 8;    // sub-codes added before the first average
constexpr int kTile = 8;     // queries scanned at a time, at most
constexpr int kSpill = 64;   // slots that may be written beyond the last
constexpr double kTolerance = 1e-7;  // of a step: what rounding may hide
constexpr size_t kAhead = 128;  // rows asked of memory in advance for one query alone, which waits for them and not for shuffles
constexpr int kMostSubcodes = 1024;

// How often sums of groups are averaged.
inline int levels_of(int subcodes) {
  int levels = 0;
  while ((kGroup << levels) < subcodes) ++levels;
  return levels;
}

// What one instruction set does. Tables are repeated to `width` bytes per sub-code, a full register.
struct Lanes {
  const char* name;
  int width;
  int tile;  // queries that the registers hold well: 1, 2, 4 or 8
  // Values of `blocks` blocks for `queries` queries (1, 2, 4 … `tile`): out[q][128 * block + item].
  void (*values)(const uint8_t* rows, size_t blocks, int subcodes, int queries, const uint8_t* const* tables,
                 uint8_t* const* out);
  // The same, but only the slots (plus `first`) of values that reach thresholds[q] are kept: slots[q][counts[q]++].
  void (*candidates)(const uint8_t* rows, size_t blocks, int subcodes, int queries, const uint8_t* const* tables,
                  const uint8_t* thresholds, size_t first, uint16_t* const* slots, size_t* counts);
  // The slots of values in [least, below), ascending; `count` is a multiple of 64. Beyond the last slot, `kSpill` more
  // may be written, here and by `candidates`.
  size_t (*select)(const uint8_t* values, size_t count, int least, int below, uint16_t* slots);
  // How many values are at least `least`, of every `stride`-th 64.
  size_t (*count)(const uint8_t* values, size_t count, size_t stride, int least);
  // Exact sums of the items at some slots, which ascend.
  void (*sums)(const uint8_t* rows, int subcodes, const double* table, const uint32_t* slots, size_t count, double* out);
  // Of some sums, times their items' scales where there are any, keeps the scores that are at least `threshold`, and their slots.
  size_t (*keep_scores)(const double* sums, const double* scales, float threshold, size_t count, uint32_t* slots, float* scores);
  // The keys of items and their scores that are greater than `least`; up to `kRegister` more are written.
  size_t (*keys)(const float* scores, const uint32_t* items, size_t count, uint64_t least, uint64_t* out);
  // Brings the `k` greatest of at least as many different keys to the front, in any order; the answer is the least of them.
  // `spare` holds `count + kRegister` keys.
  uint64_t (*best)(uint64_t* keys, size_t count, size_t k, uint64_t* spare);
  // Sorts different keys, greatest first.
  void (*sort)(uint64_t* keys, size_t count, uint64_t* spare);
  // Reads the table of a query: its entries in float64, and the least and the greatest of each sub-code. False where one is
  // not finite.
  bool (*read)(const float* entries, int subcodes, double* table, float* least, float* greatest);
  // Quantizes the table to bytes, `width` per sub-code: whole steps above the least entry of a sub-code. An entry is rounded upwards, to
  // a whole number of steps below the greatest, which is exact: the best items have most of these. How many steps all sub-codes span.
  int64_t (*quantize)(const double* table, const float* greatest, int subcodes, double inverse, uint8_t* out);
  // Products of rows, see products.hpp.
  void (*product)(const double* x, size_t queries, size_t n, const float* y, size_t width, double* out);
};

// Keeps all values.
template <class V>
struct Store {
  uint8_t* const* out;
  HASHLGN_INLINE void operator()(int q, size_t slot, typename V::Reg low, typename V::Reg high) const {
    V::store(out[q] + slot, low);
    V::store(out[q] + slot + kRow, high);
  }
};

// Writes the slots of a mask's bits, from `first` on; how many there are.
template <class V>
HASHLGN_INLINE size_t write(uint64_t mask, size_t first, uint16_t* out) {
  if constexpr (requires { V::write(mask, first, out); }) {
    V::write(mask, first, out);
  } else {
    for (uint64_t left = mask; left; left &= left - 1) {
      *out++ = static_cast<uint16_t>(first + static_cast<size_t>(__builtin_ctzll(left)));
    }
  }
  return static_cast<size_t>(__builtin_popcountll(mask));
}

// Keeps the slots of those that reach the threshold.
template <class V>
struct KeepCandidates {
  const uint8_t* thresholds;
  size_t first;
  uint16_t* const* slots;
  size_t* counts;
  HASHLGN_INLINE void operator()(int q, size_t slot, typename V::Reg low, typename V::Reg high) const {
    if (__builtin_expect(!V::any(low, high, thresholds[q]), 1)) return;
    keep(q, slot, V::at_least(low, thresholds[q]));
    keep(q, slot + kRow, V::at_least(high, thresholds[q]));
  }
  inline void keep(int q, size_t slot, uint64_t mask) const {
    counts[q] += write<V>(mask, first + slot, slots[q] + counts[q]);
  }
};

// V is a trait: the registers of one instruction set, `V::width` bytes each. Q queries share what is read of the codes.
template <class V, int Q, class Sink>
struct Tile {
  using Reg = typename V::Reg;
  struct Sums {
    Reg low[Q], high[Q];  // items of the low and of the high halves
  };

  static HASHLGN_INLINE Sums leaf(const uint8_t* rows, int first, int last, const uint8_t* const* tables) {
    Sums sums;
    for (int q = 0; q < Q; ++q) sums.low[q] = sums.high[q] = V::zero();
#pragma GCC unroll 2  // more, and sums leave the registers
    for (int m = first; m < last; ++m) {
      const Reg row = V::load(rows + static_cast<size_t>(m) * kRow);
      if constexpr (Q == 1) __builtin_prefetch(rows + (static_cast<size_t>(m) + kAhead) * kRow);
      const Reg low = V::low(row), high = V::high(row);
      for (int q = 0; q < Q; ++q) {
        const Reg table = V::load(tables[q] + m * V::width);
        const Reg a = V::lookup(table, low), b = V::lookup(table, high);
        sums.low[q] = V::add(sums.low[q], a);
        sums.high[q] = V::add(sums.high[q], b);
      }
    }
    return sums;
  }

  // Words first … first + 8 · 2^L; what lies beyond the last one counts as 0.
  template <int L>
  static HASHLGN_INLINE Sums tree(const uint8_t* rows, int first, int subcodes, const uint8_t* const* tables) {
    if constexpr (L == 0) {
      return leaf(rows, first, std::min(first + kGroup, subcodes), tables);
    } else {
      const Sums a = tree<L - 1>(rows, first, subcodes, tables);
      return average(a, tree<L - 1>(rows, first + (kGroup << (L - 1)), subcodes, tables));
    }
  }

  // The same for long codes, without writing all of it out.
  template <int L>
  static __attribute__((noinline)) void deep(const uint8_t* rows, int first, int subcodes, const uint8_t* const* tables,
                                             Sums& out) {
    if constexpr (L <= 3) {
      out = tree<L>(rows, first, subcodes, tables);
    } else {
      Sums a, b;
      deep<L - 1>(rows, first, subcodes, tables, a);
      deep<L - 1>(rows, first + (kGroup << (L - 1)), subcodes, tables, b);
      out = average(a, b);
    }
  }

  static HASHLGN_INLINE Sums average(const Sums& a, const Sums& b) {
    Sums both;
    for (int q = 0; q < Q; ++q) {
      both.low[q] = V::average(a.low[q], b.low[q]);
      both.high[q] = V::average(a.high[q], b.high[q]);
    }
    return both;
  }

  template <int L>
  static void scan(const uint8_t* rows, size_t blocks, int subcodes, const uint8_t* const* tables, const Sink& sink) {
    for (size_t block = 0; block < blocks; ++block, rows += static_cast<size_t>(subcodes) * kRow) {
      for (int segment = 0; segment < kRow; segment += V::width) {
        Sums sums;
        if constexpr (L <= 3) sums = tree<L>(rows + segment, 0, subcodes, tables);
        else deep<L>(rows + segment, 0, subcodes, tables, sums);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) sink(q, block * kBlock + static_cast<size_t>(segment), sums.low[q], sums.high[q]);
      }
    }
  }

  static void run(const uint8_t* rows, size_t blocks, int subcodes, const uint8_t* const* tables, const Sink& sink) {
    switch (levels_of(subcodes)) {
      case 0: return scan<0>(rows, blocks, subcodes, tables, sink);
      case 1: return scan<1>(rows, blocks, subcodes, tables, sink);
      case 2: return scan<2>(rows, blocks, subcodes, tables, sink);
      case 3: return scan<3>(rows, blocks, subcodes, tables, sink);
      case 4: return scan<4>(rows, blocks, subcodes, tables, sink);
      case 5: return scan<5>(rows, blocks, subcodes, tables, sink);
      case 6: return scan<6>(rows, blocks, subcodes, tables, sink);
      default: return scan<7>(rows, blocks, subcodes, tables, sink);
    }
  }
};

template <class V, class Sink>
void scan_tile(const uint8_t* rows, size_t blocks, int subcodes, int queries, const uint8_t* const* tables,
               const Sink& sink) {
  if constexpr (V::tile >= 8) {
    if (queries == 8) return Tile<V, 8, Sink>::run(rows, blocks, subcodes, tables, sink);
  }
  if constexpr (V::tile >= 4) {
    if (queries == 4) return Tile<V, 4, Sink>::run(rows, blocks, subcodes, tables, sink);
  }
  if constexpr (V::tile >= 2) {
    if (queries == 2) return Tile<V, 2, Sink>::run(rows, blocks, subcodes, tables, sink);
  }
  return Tile<V, 1, Sink>::run(rows, blocks, subcodes, tables, sink);
}

template <class V>
struct Scans {
  static void values(const uint8_t* rows, size_t blocks, int subcodes, int queries, const uint8_t* const* tables,
                     uint8_t* const* out) {
    scan_tile<V>(rows, blocks, subcodes, queries, tables, Store<V>{out});
  }

  static void candidates(const uint8_t* rows, size_t blocks, int subcodes, int queries, const uint8_t* const* tables,
                      const uint8_t* thresholds, size_t first, uint16_t* const* slots, size_t* counts) {
    scan_tile<V>(rows, blocks, subcodes, queries, tables, KeepCandidates<V>{thresholds, first, slots, counts});
  }

  static HASHLGN_INLINE uint64_t at_least(const uint8_t* values, int least) {
    uint64_t mask = 0;
    for (int segment = 0; segment < 64; segment += V::width) {
      mask |= V::at_least(V::load(values + segment), static_cast<uint8_t>(least)) << segment;
    }
    return mask;
  }

  static size_t select(const uint8_t* values, size_t count, int least, int below, uint16_t* slots) {
    size_t found = 0;
    for (size_t start = 0; start < count; start += 64) {
      uint64_t mask = at_least(values + start, least);
      if (below <= 255) mask &= ~at_least(values + start, below);
      found += write<V>(mask, start, slots + found);
    }
    return found;
  }

  static size_t count(const uint8_t* values, size_t count, size_t stride, int least) {
    size_t found = 0;
    for (size_t start = 0; start < count; start += 64 * stride) {
      found += static_cast<size_t>(__builtin_popcountll(at_least(values + start, least)));
    }
    return found;
  }

  static bool read(const float* entries, int subcodes, double* table, float* least, float* greatest) {
    bool finite = true;
    for (int m = 0; m < subcodes; ++m, entries += 16, table += 16) {
      // Four at a time, so that no step waits for the one before it.
      float low[4], high[4];
      for (int i = 0; i < 4; ++i) low[i] = high[i] = entries[i];
      for (int i = 4; i < 16; ++i) {
        low[i % 4] = entries[i] < low[i % 4] ? entries[i] : low[i % 4];
        high[i % 4] = entries[i] > high[i % 4] ? entries[i] : high[i % 4];
      }
      uint32_t bits[16], broken = 0;
      std::memcpy(bits, entries, sizeof(bits));
      for (int i = 0; i < 16; ++i) broken |= (bits[i] & 0x7fffffffu) >= 0x7f800000u;  // NaN or infinite
      for (int i = 0; i < 16; ++i) table[i] = entries[i];
      least[m] = std::min(std::min(low[0], low[1]), std::min(low[2], low[3]));
      greatest[m] = std::max(std::max(high[0], high[1]), std::max(high[2], high[3]));
      finite &= !broken;
    }
    return finite;
  }

  static int64_t quantize(const double* table, const float* greatest, int subcodes, double inverse, uint8_t* out) {
    if constexpr (requires { V::quantize(table, greatest, subcodes, inverse, out); }) {
      return V::quantize(table, greatest, subcodes, inverse, out);
    }
    int64_t span = 0;
    for (int m = 0; m < subcodes; ++m, table += 16, out += V::width) {
      const double most = greatest[m];
      int below[16], top = 0;
      for (int i = 0; i < 16; ++i) below[i] = static_cast<int>((most - table[i]) * inverse + kTolerance);
      for (int i = 0; i < 16; ++i) top = std::max(top, below[i]);
      for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(top - below[i]);
      for (int i = 16; i < V::width; i += 16) std::copy(out, out + 16, out + i);
      span += top;
    }
    return span;
  }

  static constexpr Lanes lanes(const char* name) {
    using S = Rescoring<V>;
    return {name,    V::width,  V::tile, values,  candidates, select, count,
            S::sums, S::keep_scores, S::keys, S::best, S::sort, read,   quantize,
            Products<std::max(V::width / 8, 2)>::product};
  }
};

}  // namespace hashlgn
