// AVX-512 (BW, VBMI): a register is a row.
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
  static HASHLGN_INLINE Reg lookup(Reg table, Reg places) { return _mm512_permutexvar_epi8(places, table); }
  static HASHLGN_INLINE Reg add(Reg a, Reg b) { return _mm512_add_epi8(a, b); }
  static HASHLGN_INLINE Reg add_and_stop(Reg a, Reg b) { return _mm512_adds_epu8(a, b); }
  static HASHLGN_INLINE Reg average(Reg a, Reg b) { return _mm512_avg_epu8(a, b); }
  static HASHLGN_INLINE uint64_t at_least(Reg r, uint8_t bar) {
    return _mm512_cmpge_epu8_mask(r, _mm512_set1_epi8(static_cast<char>(bar)));
  }
  static HASHLGN_INLINE bool any(Reg low, Reg high, uint8_t bar) { return at_least(_mm512_max_epu8(low, high), bar) != 0; }
};

}  // namespace

extern const Lanes avx512;
const Lanes avx512 = Scans<Avx512>::lanes("avx512");

}  // namespace hashlgn
