// The lookup table (LUT) of a query: its float64 table, and the same quantized to bytes for the scan.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lanes.hpp"

namespace hashlgn {

// The value of an item, which the scan makes of its bytes, never understates its sum:
//
//     sum ≤ offset + (value + tolerance) / inverse,
//
// so that an item whose value is under `threshold(sum)` has a smaller sum.
class Lut {
 public:
  // Reads and quantizes the table of a query, (subcodes, 16); false where it is not finite.
  bool read(const Lanes& lanes, const float* entries, int subcodes) {
    const size_t count = static_cast<size_t>(subcodes), width = static_cast<size_t>(lanes.width);
    table_.resize(16 * count), least_.resize(count), greatest_.resize(count);
    lines_.resize((count * width + sizeof(Line) - 1) / sizeof(Line));
    if (!lanes.read(entries, subcodes, table_.data(), least_.data(), greatest_.data())) return false;
    double group = 0, widest_group = 0;  // greatest minus least entries, added over a group
    double greatest_sum = 0, sizes = 0;  // greatest entries, and greatest absolute ones, added over all sub-codes
    for (size_t m = 0; m < count; ++m) {
      const double least = least_[m], greatest = greatest_[m];
      group = (m % kGroup ? group : 0) + greatest - least;
      widest_group = std::max(widest_group, group);
      greatest_sum += greatest;
      sizes += std::max(std::fabs(least), std::fabs(greatest));
    }
    const double step = step_of(widest_group), inverse = step > 0 ? 1 / step : 0;
    const double span = static_cast<double>(lanes.quantize(table_.data(), greatest_.data(), subcodes, inverse, lines_.data()->byte));
    const int levels = levels_of(subcodes);
    inverse_ = std::ldexp(inverse, -levels);
    tolerance_ = std::ldexp(2 * kTolerance * subcodes, -levels) + 1e-6;  // of the bytes, and of this arithmetic
    const double rounding = (subcodes + 4) * 0x1p-52 * sizes;            // of a float64 sum of entries
    offset_ = greatest_sum - step * span + rounding;
    return true;
  }

  const double* table() const { return table_.data(); }
  const uint8_t* bytes() const { return lines_.data()->byte; }

  // The least value of an item whose sum is at least `sum`; 256 where no item can have such a sum.
  int threshold(double sum) const {
    const double over = sum - offset_;
    if (!(over > 0)) return 0;
    if (inverse_ == 0) return 256;
    return static_cast<int>(std::ceil(std::clamp(over * inverse_ - tolerance_, 0.0, 256.0)));
  }

 private:
  struct alignas(64) Line {
    uint8_t byte[64];
  };

  // The finest step with which the entries of a group add up to at most 255. Where all entries are whole multiples of one number, as
  // those of binary users, so is the step, and nothing is rounded: items with equal scores have equal values.
  double step_of(double widest_group) const {
    const double finest = widest_group / 255, common = common_step();
    return common > finest && finest > 0 ? common / std::floor(common / finest) : finest;
  }

  // The smallest difference between entries of the first sub-code, if all entries of the table are whole multiples of it; else 0.
  double common_step() const {
    double step = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < 16; ++i) {
      const double below = greatest_[0] - table_[i];
      if (below > 0) step = std::min(step, below);
    }
    for (size_t i = 0; i < table_.size(); ++i) {
      const double steps = (greatest_[i / 16] - table_[i]) / step;
      if (!(std::fabs(steps - std::nearbyint(steps)) <= kTolerance / 2)) return 0;
    }
    return std::isinf(step) ? 0 : step;
  }

  std::vector<double> table_;            // (subcodes, 16)
  std::vector<float> least_, greatest_;  // entry of each sub-code
  std::vector<Line> lines_;              // the bytes, (subcodes, width)
  double inverse_ = 0, offset_ = 0, tolerance_ = 0;
};

}  // namespace hashlgn
