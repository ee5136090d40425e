// One query on its way through the catalogue.
#pragma once

#include "lut.hpp"
#include "search.hpp"
#include "seen.hpp"
#include "topk.hpp"

namespace hashlgn {

// A positive half: its bits lie in a float's, 112 powers of two too low.
inline double half_to_double(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  return static_cast<double>(value) * 0x1p112;
}

inline double scale_at(const Segment& segment, size_t slot) {
  switch (segment.scale_bytes) {
    case 2: return half_to_double(static_cast<const uint16_t*>(segment.scale)[slot]);
    case 4: return static_cast<const float*>(segment.scale)[slot];
    default: return static_cast<const double*>(segment.scale)[slot];
  }
}

struct Query {
  Lut lut;
  TopK top;
  Seen seen;

  // False where the table is not finite.
  bool set(const Request& request, size_t row) {
    const float* entries = request.tables + row * 16 * static_cast<size_t>(request.subcodes);
    if (!lut.read(*request.lanes, entries, request.subcodes)) return false;
    if (request.indptr) seen.set(request.seen + request.indptr[row], request.seen + request.indptr[row + 1]);
    top.start(*request.lanes, request.k, request.threshold);
    return true;
  }

  // The least value of a hit with a scale in [smallest, largest]; 256 where there can be none.
  int threshold(double smallest, double largest) const { return lut.threshold(top.least_sum(smallest, largest)); }
};

}  // namespace hashlgn
