// Plain C++, for every machine, and what the other instruction sets are compared with.
#include "lanes.hpp"

namespace hashlgn {
namespace {

struct Portable {
  struct Reg {
    uint8_t byte[16];
  };
  static constexpr int width = 16;
  static constexpr int tile = 1;
  template <class F>
  static HASHLGN_INLINE Reg each(F f) {
    Reg out;
    for (int i = 0; i < width; ++i) out.byte[i] = static_cast<uint8_t>(f(i));
    return out;
  }
  static HASHLGN_INLINE Reg zero() {
    return each([](int) { return 0; });
  }
  static HASHLGN_INLINE Reg load(const uint8_t* p) {
    return each([p](int i) { return p[i]; });
  }
  static HASHLGN_INLINE void store(uint8_t* p, const Reg& r) { std::copy(r.byte, r.byte + width, p); }
  static HASHLGN_INLINE Reg low(const Reg& r) {
    return each([&r](int i) { return r.byte[i] & 15; });
  }
  static HASHLGN_INLINE Reg high(const Reg& r) {
    return each([&r](int i) { return r.byte[i] >> 4; });
  }
  static HASHLGN_INLINE Reg lookup(const Reg& table, const Reg& slots) {
    return each([&](int i) { return table.byte[slots.byte[i]]; });
  }
  static HASHLGN_INLINE Reg add(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.byte[i] + b.byte[i]; });
  }
  static HASHLGN_INLINE Reg average(const Reg& a, const Reg& b) {
    return each([&](int i) { return (a.byte[i] + b.byte[i] + 1) / 2; });
  }
  static HASHLGN_INLINE uint64_t at_least(const Reg& r, uint8_t threshold) {
    uint64_t mask = 0;
    for (int i = 0; i < width; ++i) mask |= static_cast<uint64_t>(r.byte[i] >= threshold) << i;
    return mask;
  }
  static HASHLGN_INLINE bool any(const Reg& low, const Reg& high, uint8_t threshold) {
    return (at_least(low, threshold) | at_least(high, threshold)) != 0;
  }
};

}  // namespace

extern const Lanes portable;
const Lanes portable = Scans<Portable>::lanes("portable");

}  // namespace hashlgn
