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
  static HASHLGN_INLINE bool any(Reg low, Reg high, uint8_t threshold) { return at_least(_mm512_max_epu8(low, high), threshold) != 0; }
 private:
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
