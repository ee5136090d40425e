// AVX2: a row is two registers.
#include <immintrin.h>

#include "lanes.hpp"

namespace hashlgn {
namespace {

struct Avx2 {
  using Reg = __m256i;
  static constexpr int width = 32;
  static constexpr int tile = 4;
  static HASHLGN_INLINE Reg zero() { return _mm256_setzero_si256(); }
  static HASHLGN_INLINE Reg load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static HASHLGN_INLINE void store(uint8_t* p, Reg r) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), r); }
  static HASHLGN_INLINE Reg low(Reg r) { return _mm256_and_si256(r, _mm256_set1_epi8(15)); }
  static HASHLGN_INLINE Reg high(Reg r) { return low(_mm256_srli_epi16(r, 4)); }
  static HASHLGN_INLINE Reg lookup(Reg table, Reg slots) { return _mm256_shuffle_epi8(table, slots); }
  static HASHLGN_INLINE Reg add(Reg a, Reg b) { return _mm256_add_epi8(a, b); }
  static HASHLGN_INLINE Reg average(Reg a, Reg b) { return _mm256_avg_epu8(a, b); }
  static HASHLGN_INLINE uint64_t at_least(Reg r, uint8_t threshold) {
    const Reg greater = _mm256_max_epu8(r, _mm256_set1_epi8(static_cast<char>(threshold)));
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(greater, r)));
  }
  static HASHLGN_INLINE bool any(Reg low, Reg high, uint8_t threshold) { return at_least(_mm256_max_epu8(low, high), threshold) != 0; }
};

}  // namespace

extern const Lanes avx2;
const Lanes avx2 = Scans<Avx2>::lanes("avx2");

}  // namespace hashlgn
