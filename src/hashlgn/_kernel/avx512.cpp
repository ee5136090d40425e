// AVX-512 (BW, VL, VBMI, VBMI2): a register is a row.
#include <immintrin.h>

#include "lanes.hpp"

namespace hashlgn {
namespace {

struct Avx512 {
  using Reg = __m512i;
  static constexpr int width = 64;
  static constexpr int tile = 8;
  static HASHLGN_INLINE Reg zero() { return _mm512_setzero_si512(); }
  static HASHLGN_INLINE Reg load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static HASHLGN_INLINE void store(uint8_t* p, Reg r) { _mm512_storeu_si512(p, r); }
  // The look-up reads six bits of a byte, and a table stands four times in its register: the two upper bits of the six
  // may be anything, so nothing needs to be masked.
  static HASHLGN_INLINE Reg low(Reg r) { return r; }
  static HASHLGN_INLINE Reg high(Reg r) { return _mm512_srli_epi16(r, 4); }
  static HASHLGN_INLINE Reg lookup(Reg table, Reg slots) { return _mm512_permutexvar_epi8(slots, table); }
  static HASHLGN_INLINE Reg add(Reg a, Reg b) { return _mm512_add_epi8(a, b); }
  static HASHLGN_INLINE Reg average(Reg a, Reg b) { return _mm512_avg_epu8(a, b); }
  static HASHLGN_INLINE uint64_t at_least(Reg r, uint8_t threshold) {
    return _mm512_cmpge_epu8_mask(r, _mm512_set1_epi8(static_cast<char>(threshold)));
  }
  static HASHLGN_INLINE void write(uint64_t mask, size_t first, uint16_t* out) {
    if (mask == 0) return;
    const __m512i low = _mm512_add_epi16(_mm512_set1_epi16(static_cast<short>(first)), numbers());
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(32));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(static_cast<__mmask32>(mask), low));
    out += __builtin_popcount(static_cast<uint32_t>(mask));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi16(static_cast<__mmask32>(mask >> 32), high));
  }
  static HASHLGN_INLINE int64_t quantize(const double* table, const float* greatest, int subcodes, double inverse, uint8_t* out) {
    int64_t span = 0;
    for (int m = 0; m < subcodes; ++m, table += 16, out += width) {
      const auto below = [&](const double* entries) {
        const __m512d gap = _mm512_sub_pd(_mm512_set1_pd(greatest[m]), _mm512_loadu_pd(entries));
        return _mm512_cvttpd_epi32(_mm512_add_pd(_mm512_mul_pd(gap, _mm512_set1_pd(inverse)), _mm512_set1_pd(kTolerance)));
      };
      __m512i some = _mm512_inserti64x4(_mm512_castsi256_si512(below(table)), below(table + 8), 1);
      const int top = _mm512_reduce_max_epi32(some);
      some = _mm512_sub_epi32(_mm512_set1_epi32(top), some);
      store(out, _mm512_broadcast_i32x4(_mm512_cvtusepi32_epi8(some)));
      span += top;
    }
    return span;
  }
  // The next items, up to eight, an item a lane, where they lie in four blocks that follow one another; how many these are.
  // A table of sixteen is two registers, and a look-up reads four bits of a lane: what stands above them may be anything.
  static HASHLGN_INLINE size_t sums(const uint8_t* rows, int subcodes, const double* table, const uint32_t* slots, size_t count,
                                    double* out) {
    const size_t taken = std::min<size_t>(count, 8);
    const uint32_t first = slots[0] / kBlock, last = slots[taken - 1] / kBlock;
    if (taken < 3 || last - first > 3) return 0;
    const __mmask8 lanes = static_cast<__mmask8>((1u << taken) - 1);
    const __m512i slot = _mm512_cvtepu32_epi64(_mm256_maskz_loadu_epi32(lanes, slots));
    // Which byte of two rows: an odd block is the second one.
    const __m512i from = _mm512_sub_epi64(slot, _mm512_set1_epi64(first * kBlock));
    const __m512i byte = _mm512_or_si512(_mm512_and_si512(from, _mm512_set1_epi64(kRow - 1)),
                                         _mm512_and_si512(_mm512_srli_epi64(from, 1), _mm512_set1_epi64(kRow)));
    const __mmask8 late = _mm512_test_epi64_mask(from, _mm512_set1_epi64(2 * kBlock));
    const __m512i shift = _mm512_and_si512(_mm512_srli_epi64(slot, 4), _mm512_set1_epi64(4));
    const size_t size = static_cast<size_t>(subcodes) * kRow;
    const uint8_t *a = rows + first * size, *b = rows + std::min(first + 1, last) * size;
    const uint8_t *c = rows + std::min(first + 2, last) * size, *d = rows + last * size;
    __m512d sum = _mm512_setzero_pd();
    const auto add = [&](__m512i bytes) {
      const __m512i subcode = _mm512_srlv_epi64(bytes, shift);
      sum = _mm512_add_pd(sum, _mm512_permutex2var_pd(_mm512_loadu_pd(table), subcode, _mm512_loadu_pd(table + 8)));
      table += 16;
    };
    for (size_t m = 0; m < size; m += kRow) {
      const __m512i early = _mm512_permutex2var_epi8(load(a + m), byte, load(b + m));
      add(_mm512_mask_mov_epi64(early, late, _mm512_permutex2var_epi8(load(c + m), byte, load(d + m))));
    }
    _mm512_mask_storeu_pd(out, lanes, sum);
    return taken;
  }
  static HASHLGN_INLINE size_t keep_scores(const double* sums, const double* scales, float threshold, size_t count, uint32_t* slots,
                                      float* scores) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i += 8) {
      const __mmask8 lanes = static_cast<__mmask8>(count - i < 8 ? (1u << (count - i)) - 1 : 255);
      __m512d sum = _mm512_maskz_loadu_pd(lanes, sums + i);
      if (scales) sum = _mm512_mul_pd(sum, _mm512_maskz_loadu_pd(lanes, scales + i));
      const __m256 score = _mm512_cvtpd_ps(sum);
      const __mmask8 over = _mm256_mask_cmp_ps_mask(lanes, score, _mm256_set1_ps(threshold), _CMP_GE_OQ);
      const __m256i slot = _mm256_maskz_loadu_epi32(lanes, slots + i);
      const unsigned found = static_cast<unsigned>(__builtin_popcount(over));
      const __mmask8 front = static_cast<__mmask8>((1u << found) - 1);
      _mm256_mask_storeu_ps(scores + kept, front, _mm256_maskz_compress_ps(over, score));
      _mm256_mask_storeu_epi32(slots + kept, front, _mm256_maskz_compress_epi32(over, slot));
      kept += found;
    }
    return kept;
  }
  static HASHLGN_INLINE size_t keys(const float* scores, const uint32_t* items, size_t count, uint64_t least, uint64_t* out) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i += 8) {
      const __mmask8 lanes = static_cast<__mmask8>(count - i < 8 ? (1u << (count - i)) - 1 : 255);
      const __m256 score = _mm256_add_ps(_mm256_maskz_loadu_ps(lanes, scores + i), _mm256_setzero_ps());
      __m256i bits = _mm256_castps_si256(score);
      bits = _mm256_xor_si256(bits, _mm256_or_si256(_mm256_srai_epi32(bits, 31), _mm256_set1_epi32(INT32_MIN)));
      const __m256i item = _mm256_xor_si256(_mm256_maskz_loadu_epi32(lanes, items + i), _mm256_set1_epi32(-1));
      const __m512i key = _mm512_or_si512(_mm512_slli_epi64(_mm512_cvtepu32_epi64(bits), 32), _mm512_cvtepu32_epi64(item));
      const __mmask8 over = _mm512_mask_cmpgt_epu64_mask(lanes, key, _mm512_set1_epi64(static_cast<long long>(least)));
      _mm512_storeu_si512(out + kept, _mm512_maskz_compress_epi64(over, key));
      kept += static_cast<unsigned>(__builtin_popcount(over));
    }
    return kept;
  }
  static HASHLGN_INLINE size_t split(uint64_t* keys, size_t count, uint64_t pivot, uint64_t* spare) {
    const __m512i bound = _mm512_set1_epi64(static_cast<long long>(pivot));
    size_t front = 0, back = 0;
    for (size_t i = 0; i < count; i += 8) {
      const __mmask8 lanes = static_cast<__mmask8>(count - i < 8 ? (1u << (count - i)) - 1 : 255);
      const __m512i some = _mm512_maskz_loadu_epi64(lanes, keys + i);
      const __mmask8 over = _mm512_mask_cmpge_epu64_mask(lanes, some, bound), under = static_cast<__mmask8>(lanes & ~over);
      const unsigned found = static_cast<unsigned>(__builtin_popcount(over));
      _mm512_mask_storeu_epi64(keys + front, static_cast<__mmask8>((1u << found) - 1), _mm512_maskz_compress_epi64(over, some));
      _mm512_storeu_si512(spare + back, _mm512_maskz_compress_epi64(under, some));
      front += found, back += static_cast<unsigned>(__builtin_popcount(under));
    }
    return front;
  }
  // A bitonic network (Batcher, 1968) over up to sixteen registers, filled up with zeros: no key is smaller.
  static constexpr size_t few = 128;
  static HASHLGN_INLINE void sort(uint64_t* keys, size_t count) {
    if (count <= 16) network<2>(keys, count);
    else if (count <= 64) network<8>(keys, count);
    else network<16>(keys, count);
  }
  static HASHLGN_INLINE bool any(Reg low, Reg high, uint8_t threshold) { return at_least(_mm512_max_epu8(low, high), threshold) != 0; }
 private:
  template <int Registers>
  static void network(uint64_t* keys, size_t count) {
    __m512i some[Registers];
    for (int r = 0; r < Registers; ++r) some[r] = _mm512_maskz_loadu_epi64(lanes_of(count, r), keys + 8 * r);
#pragma GCC unroll 8
    for (int size = 2; size <= 8 * Registers; size *= 2) {
#pragma GCC unroll 8
      for (int stride = size / 2; stride > 0; stride /= 2) {
#pragma GCC unroll 16
        for (int r = 0; r < Registers; ++r) {
          if (stride >= 8) {
            const int other = r ^ (stride / 8);
            if (other < r) continue;
            const __m512i most = _mm512_max_epu64(some[r], some[other]), least = _mm512_min_epu64(some[r], some[other]);
            const bool falling = (8 * r & size) == 0;
            some[r] = falling ? most : least, some[other] = falling ? least : most;
          } else {
            const __m512i other = stride == 1   ? _mm512_shuffle_epi32(some[r], static_cast<_MM_PERM_ENUM>(0x4E))
                                  : stride == 2 ? _mm512_permutex_epi64(some[r], 0x4E)
                                                : _mm512_shuffle_i64x2(some[r], some[r], 0x4E);
            // Lanes that keep the greater key: the lower of a pair where a run falls, the upper where it rises.
            const int lower = stride == 1 ? 0x55 : stride == 2 ? 0x33 : 0x0F;
            const int falls = size == 2 ? 0x33 : size == 4 ? 0x0F : (8 * r & size) == 0 ? 0xFF : 0;
            const __mmask8 greater = static_cast<__mmask8>(~(lower ^ falls));
            some[r] = _mm512_mask_max_epu64(_mm512_min_epu64(some[r], other), greater, some[r], other);
          }
        }
      }
    }
    for (int r = 0; r < Registers; ++r) _mm512_mask_storeu_epi64(keys + 8 * r, lanes_of(count, r), some[r]);
  }
  static HASHLGN_INLINE __mmask8 lanes_of(size_t count, int r) {
    const size_t first = 8 * static_cast<size_t>(r);
    return static_cast<__mmask8>(count >= first + 8 ? 255 : count > first ? (1u << (count - first)) - 1 : 0);
  }
  static HASHLGN_INLINE __m512i numbers() {
    alignas(64) static constexpr uint16_t kNumbers[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                          16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    return _mm512_load_si512(kNumbers);
  }
};

}  // namespace

extern const Lanes avx512;
const Lanes avx512 = Scans<Avx512>::lanes("avx512");

}  // namespace hashlgn
