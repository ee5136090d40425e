// NEON (AArch64): a row is four registers.
#include <arm_neon.h>

#include "lanes.hpp"

namespace hashlgn {
namespace {

struct Neon {
  using Reg = uint8x16_t;
  static constexpr int width = 16;
  static constexpr int tile = 4;
  static HASHLGN_INLINE Reg zero() { return vdupq_n_u8(0); }
  static HASHLGN_INLINE Reg load(const uint8_t* p) { return vld1q_u8(p); }
  static HASHLGN_INLINE void store(uint8_t* p, Reg r) { vst1q_u8(p, r); }
  static HASHLGN_INLINE Reg low(Reg r) { return vandq_u8(r, vdupq_n_u8(15)); }
  static HASHLGN_INLINE Reg high(Reg r) { return vshrq_n_u8(r, 4); }
  static HASHLGN_INLINE Reg lookup(Reg table, Reg slots) { return vqtbl1q_u8(table, slots); }
  static HASHLGN_INLINE Reg add(Reg a, Reg b) { return vaddq_u8(a, b); }
  static HASHLGN_INLINE Reg average(Reg a, Reg b) { return vrhaddq_u8(a, b); }
  static HASHLGN_INLINE uint64_t at_least(Reg r, uint8_t threshold) {
    // Each byte keeps the bit of its slot, and eight bytes are added to one, twice.
    const Reg bits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const Reg kept = vandq_u8(vcgeq_u8(r, vdupq_n_u8(threshold)), bits);
    return static_cast<uint64_t>(vaddv_u8(vget_low_u8(kept))) | static_cast<uint64_t>(vaddv_u8(vget_high_u8(kept))) << 8;
  }
  static HASHLGN_INLINE bool any(Reg low, Reg high, uint8_t threshold) { return vmaxvq_u8(vmaxq_u8(low, high)) >= threshold; }
};

}  // namespace

extern const Lanes neon;
const Lanes neon = Scans<Neon>::lanes("neon");

}  // namespace hashlgn
