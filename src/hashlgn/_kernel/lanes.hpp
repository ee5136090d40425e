// The scan of blocks of codes, written once for every instruction set.
//
// A block is 128 items, word after word: row m is 64 bytes, and byte j of it holds word m of item j in its low half and
// of item j + 64 in its high half. A query is a table of 16 bytes a word. A value is the sum of an item's entries: words
// are added eight at a time in bytes, and these sums are averaged in pairs, rounded upwards, so that
//
//     value_i ≥ Σ_m table[m, word_im] / 2^levels,    levels = ceil(log2(ceil(words / 8))),
//
// whatever the words: a value never hides an item. The caller sees to it that eight words add up to at most 255.
#pragma once

#include <cstring>

#include "candidates.hpp"
#include "products.hpp"

namespace hashlgn {

constexpr int kGroup = 8;    // words added before the first average
constexpr int kTile = 8;     // queries scanned at a time, at most
constexpr int kSpill = 64;   // places that may be written beyond the last
constexpr double kHair = 1e-7;  // of a step: what rounding may hide
constexpr size_t kAhead = 128;  // rows asked of memory in advance for one query alone, which waits for them and not for shuffles
constexpr int kMostWords = 1024;

// What one instruction set does. Tables are repeated to `width` bytes a word, a full register.
struct Lanes {
  const char* name;
  int width;
  int tile;  // queries that the registers hold well: 1, 2, 4 or 8
  // Values of `blocks` blocks for `queries` queries (1, 2, 4 … `tile`): out[q][128 * block + item]. With `plain`, all words are
  // added in one byte that stops at 255, and nothing is averaged; the bits that stand behind the last word are then flipped.
  void (*values)(const uint8_t* rows, size_t blocks, int words, bool plain, int queries, const uint8_t* const* tables,
                 uint8_t* const* out);
  // The same, but only the places (plus `first`) of values that reach bars[q] are kept: places[q][counts[q]++].
  void (*passing)(const uint8_t* rows, size_t blocks, int words, bool plain, int queries, const uint8_t* const* tables,
                  const uint8_t* bars, size_t first, uint16_t* const* places, size_t* counts);
  // The places of values in [least, below), ascending; `count` is a multiple of 64. Beyond the last place, `kSpill` more
  // may be written, here and by `passing`.
  size_t (*select)(const uint8_t* values, size_t count, int least, int below, uint16_t* places);
  // How many values are at least `least`, of every `stride`-th 64.
  size_t (*count)(const uint8_t* values, size_t count, size_t stride, int least);
  // Exact sums of the items at some places, which ascend.
  void (*sums)(const uint8_t* rows, int words, const double* table, const uint32_t* places, size_t count, double* out);
  // Of some sums, times their items' scales where there are any, keeps the scores that are at least `bar`, and their places.
  size_t (*wanted)(const double* sums, const double* scales, float bar, size_t count, uint32_t* places, float* scores);
  // The keys of items and their scores that are greater than `least`; up to `kRegister` more are written.
  size_t (*keys)(const float* scores, const uint32_t* items, size_t count, uint64_t least, uint64_t* out);
  // Brings the `k` greatest of at least as many different keys to the front, in any order; the answer is the least of them.
  // `spare` holds `count + kRegister` keys.
  uint64_t (*best)(uint64_t* keys, size_t count, size_t k, uint64_t* spare);
  // Sorts different keys, greatest first.
  void (*sort)(uint64_t* keys, size_t count, uint64_t* spare);
  // Reads the table of a query: its entries in float64, and the least and the greatest of each word. False where one is
  // not finite.
  bool (*read)(const float* entries, int words, double* table, float* least, float* most);
  // Writes the table in bytes, `width` a word: entries as whole steps below the greatest of their word, rounded towards it, and
  // these counted from the least, or with `falling` from the greatest; up to 255. How many steps all words span.
  int64_t (*steps)(const double* table, const float* most, int words, double inverse, bool falling, uint8_t* out);
  // Products of rows, see products.hpp.
  void (*product)(const double* x, size_t queries, size_t n, const float* y, size_t width, double* out);
};

// Keeps all values.
template <class V>
struct Store {
  uint8_t* const* out;
  HASHLGN_INLINE void operator()(int q, size_t place, typename V::Reg low, typename V::Reg high) const {
    V::store(out[q] + place, low);
    V::store(out[q] + place + kRow, high);
  }
};

// Writes the places of a mask's bits, from `first` on; how many there are.
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

// Keeps the places of those that reach the bar.
template <class V>
struct Pass {
  const uint8_t* bars;
  size_t first;
  uint16_t* const* places;
  size_t* counts;
  HASHLGN_INLINE void operator()(int q, size_t place, typename V::Reg low, typename V::Reg high) const {
    if (__builtin_expect(!V::any(low, high, bars[q]), 1)) return;
    keep(q, place, V::at_least(low, bars[q]));
    keep(q, place + kRow, V::at_least(high, bars[q]));
  }
  inline void keep(int q, size_t place, uint64_t mask) const {
    counts[q] += write<V>(mask, first + place, places[q] + counts[q]);
  }
};

// V is a trait: the registers of one instruction set, `V::width` bytes each. Q queries share what is read of the codes.
template <class V, int Q, class Sink>
struct Tile {
  using Reg = typename V::Reg;
  struct Sums {
    Reg low[Q], high[Q];  // items of the low and of the high halves
  };

  template <bool Stop>
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
        sums.low[q] = Stop ? V::add_and_stop(sums.low[q], a) : V::add(sums.low[q], a);
        sums.high[q] = Stop ? V::add_and_stop(sums.high[q], b) : V::add(sums.high[q], b);
      }
    }
    return sums;
  }

  // Words first … first + 8 · 2^L; what lies beyond the last one counts as 0.
  template <int L>
  static HASHLGN_INLINE Sums tree(const uint8_t* rows, int first, int words, const uint8_t* const* tables) {
    if constexpr (L == 0) {
      return leaf<false>(rows, first, std::min(first + kGroup, words), tables);
    } else {
      const Sums a = tree<L - 1>(rows, first, words, tables);
      return average(a, tree<L - 1>(rows, first + (kGroup << (L - 1)), words, tables));
    }
  }

  // The same for long codes, without writing all of it out.
  template <int L>
  static __attribute__((noinline)) void deep(const uint8_t* rows, int first, int words, const uint8_t* const* tables,
                                             Sums& out) {
    if constexpr (L <= 3) {
      out = tree<L>(rows, first, words, tables);
    } else {
      Sums a, b;
      deep<L - 1>(rows, first, words, tables, a);
      deep<L - 1>(rows, first + (kGroup << (L - 1)), words, tables, b);
      out = average(a, b);
    }
  }

  static HASHLGN_INLINE Sums flipped(Sums sums, int words, const uint8_t* const* tables) {
    for (int q = 0; q < Q; ++q) {
      const Reg bits = V::load(tables[q] + words * V::width);
      sums.low[q] = V::flip(sums.low[q], bits), sums.high[q] = V::flip(sums.high[q], bits);
    }
    return sums;
  }

  static HASHLGN_INLINE Sums average(const Sums& a, const Sums& b) {
    Sums both;
    for (int q = 0; q < Q; ++q) {
      both.low[q] = V::average(a.low[q], b.low[q]);
      both.high[q] = V::average(a.high[q], b.high[q]);
    }
    return both;
  }

  template <int L>  // -1: plain
  static void scan(const uint8_t* rows, size_t blocks, int words, const uint8_t* const* tables, const Sink& sink) {
    for (size_t block = 0; block < blocks; ++block, rows += static_cast<size_t>(words) * kRow) {
      for (int part = 0; part < kRow; part += V::width) {
        Sums sums;
        if constexpr (L < 0) sums = flipped(leaf<true>(rows + part, 0, words, tables), words, tables);
        else if constexpr (L <= 3) sums = tree<L>(rows + part, 0, words, tables);
        else deep<L>(rows + part, 0, words, tables, sums);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) sink(q, block * kBlock + static_cast<size_t>(part), sums.low[q], sums.high[q]);
      }
    }
  }

  static void run(const uint8_t* rows, size_t blocks, int words, bool plain, const uint8_t* const* tables, const Sink& sink) {
    int levels = 0;
    while ((kGroup << levels) < words) ++levels;
    switch (plain ? -1 : levels) {
      case -1: return scan<-1>(rows, blocks, words, tables, sink);
      case 0: return scan<0>(rows, blocks, words, tables, sink);
      case 1: return scan<1>(rows, blocks, words, tables, sink);
      case 2: return scan<2>(rows, blocks, words, tables, sink);
      case 3: return scan<3>(rows, blocks, words, tables, sink);
      case 4: return scan<4>(rows, blocks, words, tables, sink);
      case 5: return scan<5>(rows, blocks, words, tables, sink);
      case 6: return scan<6>(rows, blocks, words, tables, sink);
      default: return scan<7>(rows, blocks, words, tables, sink);
    }
  }
};

template <class V, class Sink>
void scan_tile(const uint8_t* rows, size_t blocks, int words, bool plain, int queries, const uint8_t* const* tables,
               const Sink& sink) {
  if constexpr (V::tile >= 8) {
    if (queries == 8) return Tile<V, 8, Sink>::run(rows, blocks, words, plain, tables, sink);
  }
  if constexpr (V::tile >= 4) {
    if (queries == 4) return Tile<V, 4, Sink>::run(rows, blocks, words, plain, tables, sink);
  }
  if constexpr (V::tile >= 2) {
    if (queries == 2) return Tile<V, 2, Sink>::run(rows, blocks, words, plain, tables, sink);
  }
  return Tile<V, 1, Sink>::run(rows, blocks, words, plain, tables, sink);
}

template <class V>
struct Scans {
  static void values(const uint8_t* rows, size_t blocks, int words, bool plain, int queries, const uint8_t* const* tables,
                     uint8_t* const* out) {
    scan_tile<V>(rows, blocks, words, plain, queries, tables, Store<V>{out});
  }

  static void passing(const uint8_t* rows, size_t blocks, int words, bool plain, int queries, const uint8_t* const* tables,
                      const uint8_t* bars, size_t first, uint16_t* const* places, size_t* counts) {
    scan_tile<V>(rows, blocks, words, plain, queries, tables, Pass<V>{bars, first, places, counts});
  }

  static HASHLGN_INLINE uint64_t at_least(const uint8_t* values, int least) {
    uint64_t mask = 0;
    for (int part = 0; part < 64; part += V::width) {
      mask |= V::at_least(V::load(values + part), static_cast<uint8_t>(least)) << part;
    }
    return mask;
  }

  static size_t select(const uint8_t* values, size_t count, int least, int below, uint16_t* places) {
    size_t found = 0;
    for (size_t start = 0; start < count; start += 64) {
      uint64_t mask = at_least(values + start, least);
      if (below <= 255) mask &= ~at_least(values + start, below);
      found += write<V>(mask, start, places + found);
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

  static bool read(const float* entries, int words, double* table, float* least, float* most) {
    bool finite = true;
    for (int m = 0; m < words; ++m, entries += 16, table += 16) {
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
      most[m] = std::max(std::max(high[0], high[1]), std::max(high[2], high[3]));
      finite &= !broken;
    }
    return finite;
  }

  static int64_t steps(const double* table, const float* most, int words, double inverse, bool falling, uint8_t* out) {
    if constexpr (requires { V::steps(table, most, words, inverse, falling, out); }) {
      return V::steps(table, most, words, inverse, falling, out);
    }
    int64_t all = 0;
    for (int m = 0; m < words; ++m, table += 16, out += V::width) {
      const double greatest = most[m];
      int below[16], top = 0;
      for (int i = 0; i < 16; ++i) below[i] = static_cast<int>((greatest - table[i]) * inverse + kHair);
      for (int i = 0; i < 16; ++i) top = std::max(top, below[i]);
      for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(std::min(falling ? below[i] : top - below[i], 255));
      for (int i = 16; i < V::width; i += 16) std::copy(out, out + 16, out + i);
      all += top;
    }
    return all;
  }

  static constexpr Lanes lanes(const char* name) {
    using S = Survivors<V>;
    return {name,    V::width,  V::tile, values,  passing, select, count,
            S::sums, S::wanted, S::keys, S::best, S::sort, read,   steps,
            Products<std::max(V::width / 8, 2)>::product};
  }
};

}  // namespace hashlgn
