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

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "encode.hpp"
#include "products.hpp"

#define HASHLGN_INLINE inline __attribute__((always_inline))

namespace hashlgn {

constexpr int kBlock = 128;          // items in a block
constexpr int kRow = 64;             // bytes of one sub-code of a block
constexpr int kGroup = 8;            // sub-codes added before the first average
constexpr int kMostSubcodes = 1024;  // of a code
constexpr int kTile = 8;             // queries scanned at a time, at most
constexpr int kSpill = 64;           // slots that may be written beyond the last
constexpr int kFour = 4;             // items scored exactly at a time, wherever they are
constexpr double kTolerance = 1e-7;  // of a step: what rounding may hide
constexpr size_t kAhead = 128;       // rows that few queries ask of memory in advance: they wait for them, not for look-ups

// How often sums of groups are averaged.
inline int levels_of(int subcodes) {
  int levels = 0;
  while ((kGroup << levels) < subcodes) ++levels;
  return levels;
}

// Blocks of codes, and the tables of the queries that are to scan them, each repeated to a full register per sub-code.
struct Scan {
  const uint8_t* rows;
  size_t blocks;
  int subcodes;
  int queries;  // 1, 2, 4 … `tile`
  const uint8_t* const* tables;
};

// What one instruction set does.
struct Lanes {
  const char* name;
  int width;  // bytes of a register
  int tile;   // queries that the registers hold well: 1, 2, 4 or 8
  // All values: out[q][128 * block + item].
  void (*values)(const Scan& scan, uint8_t* const* out);
  // The slots (plus `first`) of values that reach thresholds[q], block by block: slots[q][counts[q]++]. Beyond the last slot,
  // `kSpill` more may be written, here and by `select`.
  void (*candidates)(const Scan& scan, const uint8_t* thresholds, size_t first, uint16_t* const* slots, size_t* counts);
  // The slots of values in [least, below), ascending; `count` is a multiple of 64.
  size_t (*select)(const uint8_t* values, size_t count, int least, int below, uint16_t* slots);
  // How many values are at least `least`, of every `stride`-th 64.
  size_t (*count)(const uint8_t* values, size_t count, size_t stride, int least);
  // Exact sums of the items at some slots, whose blocks ascend.
  void (*sums)(const uint8_t* rows, int subcodes, const double* table, const uint32_t* slots, size_t count, double* out);
  // Reads the table of a query: its entries in float64, and the least and the greatest of each sub-code. False where one is
  // not finite.
  bool (*read)(const float* entries, int subcodes, double* table, float* least, float* greatest);
  // Quantizes the table to bytes, `width` per sub-code: whole steps above the least entry of a sub-code. An entry is rounded upwards, to
  // a whole number of steps below the greatest, which is exact: the best items have most of these. How many steps all sub-codes span.
  int64_t (*quantize)(const double* table, const float* greatest, int subcodes, double inverse, uint8_t* out);
  // Products of rows, and the same in single precision, see products.hpp.
  void (*product)(const double* x, size_t queries, size_t n, const float* y, size_t width, double* out);
  void (*single)(const float* x, size_t queries, size_t n, const float* y, size_t width, float* out);
  // Sub-codes of a vector, see encode.hpp.
  void (*encode)(const Codewords& codewords, const float* dots, uint8_t* words);
};

// V is a trait: the registers of one instruction set, `V::width` bytes each. This is a sink of `Tile` that keeps all values.
template <class V>
struct KeepValues {
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

// A sink that keeps the slots of those that reach the threshold.
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

// Q queries share what is read of the codes.
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
      if constexpr (Q <= 4) __builtin_prefetch(rows + (static_cast<size_t>(m) + kAhead) * kRow);
      const Reg low = V::low(row), high = V::high(row);
      for (int q = 0; q < Q; ++q) {
        const Reg table = V::load(tables[q] + m * V::width);
        sums.low[q] = V::add(sums.low[q], V::lookup(table, low));
        sums.high[q] = V::add(sums.high[q], V::lookup(table, high));
      }
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

  // Sub-codes first … first + 8 · 2^L; what lies beyond the last one counts as 0.
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
  static __attribute__((noinline)) void deep(int levels, const uint8_t* rows, int first, int subcodes, const uint8_t* const* tables,
                                             Sums& out) {
    if (levels == kInline) {
      out = tree<kInline>(rows, first, subcodes, tables);
    } else {
      Sums a, b;
      deep(levels - 1, rows, first, subcodes, tables, a);
      deep(levels - 1, rows, first + (kGroup << (levels - 1)), subcodes, tables, b);
      out = average(a, b);
    }
  }

  template <int L>
  static void blocks(const Scan& scan, int levels, const Sink& sink) {
    const uint8_t* rows = scan.rows;
    for (size_t block = 0; block < scan.blocks; ++block, rows += static_cast<size_t>(scan.subcodes) * kRow) {
      for (int segment = 0; segment < kRow; segment += V::width) {
        Sums sums;
        if constexpr (L <= kInline) sums = tree<L>(rows + segment, 0, scan.subcodes, scan.tables);
        else deep(levels, rows + segment, 0, scan.subcodes, scan.tables, sums);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) sink(q, block * kBlock + static_cast<size_t>(segment), sums.low[q], sums.high[q]);
      }
    }
  }

  static void run(const Scan& scan, const Sink& sink) {
    const int levels = levels_of(scan.subcodes);
    switch (levels) {
      case 0: return blocks<0>(scan, levels, sink);
      case 1: return blocks<1>(scan, levels, sink);
      case 2: return blocks<2>(scan, levels, sink);
      case 3: return blocks<3>(scan, levels, sink);
      default: return blocks<kInline + 1>(scan, levels, sink);
    }
  }

 private:
  static constexpr int kInline = 3;  // levels that are written out
};

// A tile of as many queries as there are, Q at most.
template <class V, int Q, class Sink>
void run_tile(const Scan& scan, const Sink& sink) {
  if constexpr (Q > 1) {
    if (scan.queries < Q) return run_tile<V, Q / 2>(scan, sink);
  }
  Tile<V, Q, Sink>::run(scan, sink);
}

template <class V>
struct Scans {
  static void values(const Scan& scan, uint8_t* const* out) { run_tile<V, V::tile>(scan, KeepValues<V>{out}); }

  static void candidates(const Scan& scan, const uint8_t* thresholds, size_t first, uint16_t* const* slots, size_t* counts) {
    run_tile<V, V::tile>(scan, KeepCandidates<V>{thresholds, first, slots, counts});
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

  static bool read(const float* entries, int subcodes, double* table, float* least, float* greatest) {
    uint32_t broken = 0;
    for (int m = 0; m < subcodes; ++m, entries += 16, table += 16) {
      // Four at a time, so that no step waits for the one before it.
      float low[4], high[4];
      for (int i = 0; i < 4; ++i) low[i] = high[i] = entries[i];
      for (int i = 4; i < 16; ++i) {
        low[i % 4] = entries[i] < low[i % 4] ? entries[i] : low[i % 4];
        high[i % 4] = entries[i] > high[i % 4] ? entries[i] : high[i % 4];
      }
      uint32_t bits[16];
      std::memcpy(bits, entries, sizeof(bits));
      for (int i = 0; i < 16; ++i) broken |= (bits[i] & 0x7fffffffu) >= 0x7f800000u;  // NaN or infinite
      for (int i = 0; i < 16; ++i) table[i] = entries[i];
      least[m] = std::min(std::min(low[0], low[1]), std::min(low[2], low[3]));
      greatest[m] = std::max(std::max(high[0], high[1]), std::max(high[2], high[3]));
    }
    return !broken;
  }

  static int64_t quantize(const double* table, const float* greatest, int subcodes, double inverse, uint8_t* out) {
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
    return {name,   V::width, V::tile, values, candidates, select,
            count,  sums,     read,    quantize,
            Products<double, std::max(V::width / 8, 2)>::product,
            Products<float, std::max(V::width / 4, 4)>::product,
            Encoder<V>::encode};
  }
};

}  // namespace hashlgn
