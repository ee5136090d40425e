// The lookup table (LUT) of a query: its float64 table, and the same quantized to bytes for the scan.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lanes.hpp"

namespace hashlgn {

// Sums of bytes never understate the sums that they stand for: with `value` the sum of an item's bytes,
//
//     sum ≤ offset + value · step + tolerance,
//
// so that an item whose value is under `threshold(sum)` has a smaller sum. The bytes are chosen so that few items with a
// smaller sum reach the threshold too: each of these costs an exact score.
class Lut {
 public:
  // Reads the table of a query, (subcodes, 16); false where it is not finite.
  bool read(const Lanes& lanes, const float* entries, int subcodes) {
    lanes_ = &lanes, subcodes_ = subcodes;
    const size_t count = static_cast<size_t>(subcodes);
    table_.resize(16 * count), least_.resize(count), greatest_.resize(count);
    if (!lanes.read(entries, subcodes, table_.data(), least_.data(), greatest_.data())) return false;
    least_sum_ = sizes_ = widest_group_ = span_ = 0;
    clamping_ = Clamping::untried, clamped_ = false, stale_ = true;
    double group = 0;
    for (size_t m = 0; m < count; ++m) {
      const double least = least_[m], greatest = greatest_[m];
      if (m % kGroup == 0) group = 0;
      group += greatest - least, span_ += greatest - least, least_sum_ += least;
      widest_group_ = std::max(widest_group_, group);
      sizes_ += std::max(std::fabs(least), std::fabs(greatest));
    }
    common_step_ = common_step();
    exact_ = common_step_ > 0 && span_ / common_step_ <= kExactSteps;
    return true;
  }

  const double* table() const { return table_.data(); }
  const uint8_t* bytes() const { return lines_.data()->byte; }

  // Whether bytes are added in one byte that saturates at 255, and flipped at the end, instead of averaged in groups.
  bool saturating() const { return adding_ != Adding::averages; }

  // Quantizes the table where it was not, or is to be quantized in another way.
  void prepare() {
    if (stale_) quantize_whole();
  }

  // Quantizes the table anew where bytes that saturate tell the sums about `sum`, that of the current k-th item, better apart
  // than averages. Steps count from the least sum upwards, where a few items are far ahead of the k-th and most of the
  // table's span is theirs, or from the greatest sum downwards, where few items come near it. False where nothing changed.
  bool requantize(double sum) {
    if (exact_) return prepare(), false;
    // A sum is rounded by half a step per sub-code, and where averages are taken, by a quarter of a step each.
    const double averages = widest_group_ / 255 * (1 + levels() / 16.0);
    const auto step_of = [&](double span, double steps) { return span > 0 ? span / steps : averages; };
    double up = step_of(sum - least_sum_, kAimed), down = step_of(least_sum_ + span_ - sum, kDeepest);
    if (clamping_ == Clamping::due) {
      clamp_minima();
      clamped_ = step_of(sum - clamped_sum_, kAimed) < kWorth * std::min({up, down, averages});
      clamping_ = clamped_ ? Clamping::tried : Clamping::settled, stale_ |= clamped_;
    }
    if (clamped_) up = step_of(sum - clamped_sum_, kAimed), down = averages;
    const double step = std::max(std::min(up, down), span_ * kFinest);
    const Adding adding = step >= averages ? Adding::averages : up < down ? Adding::up : Adding::down;
    if (!stale_ && adding == adding_) {
      const double steps = step * inverse_ * (adding == Adding::up ? kAimed : kDeepest);
      const bool fits = adding == Adding::up ? steps <= kLate : kShallow <= steps && steps <= 254;
      if (adding == Adding::averages || fits) return false;
    }
    if (adding == Adding::averages) quantize_whole();
    else quantize(step, 0, adding);
    return true;
  }

  // `count` of `items` items were candidates. Where bytes made for the threshold still let many through, most of the table's
  // span may lie below all items that there are: the three least entries of each sub-code are then raised to the fourth, which
  // understates no sum and makes steps smaller. Raised entries stay if they let fewer through.
  void count_candidates(size_t count, size_t items) {
    const double share = static_cast<double>(count) / static_cast<double>(std::max<size_t>(items, 1));
    if (clamping_ == Clamping::untried && adding_ != Adding::averages && share > kMany) {
      clamping_ = Clamping::due, share_ = share;
    } else if (clamping_ == Clamping::tried && !stale_) {
      clamping_ = Clamping::settled;
      if (share > share_) clamped_ = false, stale_ = true;
    }
  }

  // Bytes that were not made for the threshold let too many through: clamp the minima when a threshold is known, and keep them so
  // whatever share follows, for the threshold has yet to rise.
  void crowded() {
    if (clamping_ == Clamping::untried) clamping_ = Clamping::due, share_ = 1;
  }

  // The least value of an item whose sum is at least `sum`; 256 where no item can have such a sum.
  int threshold(double sum) const {
    const double over = sum - offset_;
    if (!(over > 0)) return 0;
    if (inverse_ == 0) return 256;
    const double steps = over * inverse_ - tolerance_;
    if (steps > greatest_value_) return 256;
    return static_cast<int>(std::ceil(std::clamp(steps, 0.0, 255.0)));
  }

 private:
  struct alignas(64) Line {
    uint8_t byte[64];
  };
  // How bytes are added: in groups of sub-codes, whose sums are averaged on some levels; or all in one byte that saturates, as
  // steps above the least entry of each sub-code (up), or as steps below the greatest, flipped at the end (down).
  enum class Adding { averages, up, down };
  enum class Clamping { untried, due, tried, settled };

  static constexpr double kExactSteps = 300;  // a table of so few whole steps needs no rounding; more than 255 saturate
  static constexpr double kFinest = 1e-8;     // step over span, at least: the tolerance is relative to the step
  static constexpr double kMany = 1.0 / 64;   // share of candidates from which on minima are clamped
  static constexpr double kWorth = 0.5;       // size of a step with clamped minima over the one without, at most
  static constexpr size_t kClamped = 3;       // entries per sub-code that are raised
  static constexpr double kAimed = 190, kLate = 250;       // steps from the least sum up to the threshold: when made, and at most
  static constexpr double kDeepest = 253, kShallow = 220;  // steps from the greatest sum down to it: when made, and at least

  int levels() const {
    int levels = 0;
    while ((kGroup << levels) < subcodes_) ++levels;
    return levels;
  }

  // Over the whole span of the table, without rounding where its entries are whole multiples of one step that is large enough.
  void quantize_whole() {
    if (clamped_) clamped_ = false, clamping_ = Clamping::settled;
    if (exact_) return quantize(common_step_, 0, Adding::up);
    const bool whole = common_step_ > 0 && widest_group_ / common_step_ <= 255;
    quantize(whole ? common_step_ : widest_group_ / 255, levels(), Adding::averages);
  }

  // Entries are rounded towards the greatest of their sub-code, which is exact: the best items have most of these.
  void quantize(double step, int levels, Adding adding) {
    adding_ = adding, stale_ = false;
    const bool down = adding == Adding::down;
    const double inverse = step > 0 ? 1 / step : 0;
    const size_t width = static_cast<size_t>(lanes_->width), end = static_cast<size_t>(subcodes_) * width;
    lines_.resize((end + width + 63) / 64);
    uint8_t* const out = lines_.data()->byte;
    const double* const entries = clamped_ ? clamped_table_.data() : table_.data();
    const int64_t span = lanes_->steps(entries, greatest_.data(), subcodes_, inverse, down, out);
    std::memset(out + end, down ? 255 : 0, width);
    double greatest_sum = 0;
    for (const float greatest : greatest_) greatest_sum += greatest;
    inverse_ = std::ldexp(inverse, -levels);
    tolerance_ = std::ldexp(subcodes_ * 2 * kTolerance, -levels) + 1e-6;
    // The last term is what a float64 sum of the entries may be off.
    offset_ = greatest_sum - step * (down ? 255 : static_cast<double>(span)) + (subcodes_ + 4) * 0x1p-52 * sizes_;
    greatest_value_ = adding == Adding::up ? static_cast<double>(span) : 255;
  }

  void clamp_minima() {
    clamped_table_ = table_, clamped_sum_ = 0;
    for (auto entries = clamped_table_.begin(); entries != clamped_table_.end(); entries += 16) {
      std::array<double, 16> sorted;
      std::copy(entries, entries + 16, sorted.begin());
      std::nth_element(sorted.begin(), sorted.begin() + kClamped, sorted.end());
      std::transform(entries, entries + 16, entries, [&](double entry) { return std::max(entry, sorted[kClamped]); });
      clamped_sum_ += sorted[kClamped];
    }
  }

  // The smallest difference between entries of the first sub-code, if all entries of the table are whole multiples of it; else 0.
  double common_step() const {
    double step = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 16; ++i) {
      const double below = greatest_[0] - table_[static_cast<size_t>(i)];
      if (below > 0) step = std::min(step, below);
    }
    if (std::isinf(step)) return 0;
    for (size_t i = 0; i < table_.size(); ++i) {
      const double steps = (greatest_[i / 16] - table_[i]) / step;
      if (!(std::fabs(steps - std::nearbyint(steps)) <= kTolerance / 2)) return 0;
    }
    return step;
  }

  const Lanes* lanes_ = nullptr;
  int subcodes_ = 0;
  std::vector<double> table_;               // (subcodes, 16)
  std::vector<float> least_, greatest_;     // entry of each sub-code
  double least_sum_ = 0;                    // no item has a smaller sum
  double span_ = 0, widest_group_ = 0;      // greatest minus least entries, added over all sub-codes, and over a group
  double sizes_ = 0;                        // greatest absolute entries, added
  double common_step_ = 0;                  // entries are whole multiples of it; 0 where there is none
  bool exact_ = false;                      // the table is few such steps wide
  std::vector<Line> lines_;                 // the bytes, (subcodes, width), and `width` bytes that sums are flipped with
  Adding adding_ = Adding::averages;
  bool stale_ = false;                      // the bytes are not made yet, or not as they should be
  double inverse_ = 0, offset_ = 0, tolerance_ = 0;  // value ≥ (sum − offset) · inverse − tolerance
  double greatest_value_ = 0;               // of any item, if bytes did not saturate
  Clamping clamping_ = Clamping::untried;
  bool clamped_ = false;                    // the bytes are, or are to be, those of `clamped_table_`
  std::vector<double> clamped_table_;
  double clamped_sum_ = 0;                  // its `least_sum_`
  double share_ = 0;                        // of candidates before minima were clamped
};

}  // namespace hashlgn
