// One query on its way through the catalogue: its table in bytes, the bar to pass, the hits so far.
#pragma once

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "search.hpp"

namespace hashlgn {

// A positive half: its bits lie in a float's, 112 powers of two too low.
inline double half_to_double(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  return static_cast<double>(value) * 0x1p112;
}

inline double scale_at(const Part& part, size_t place) {
  switch (part.scale_bytes) {
    case 2: return half_to_double(static_cast<const uint16_t*>(part.scale)[place]);
    case 4: return static_cast<const float*>(part.scale)[place];
    default: return static_cast<const double*>(part.scale)[place];
  }
}

// Items that a query has seen; asked about an item, as a hash table of their numbers.
class Seen {
 public:
  void set(const int64_t* begin, const int64_t* end) { begin_ = begin, end_ = end, table_.clear(); }

  // To be called before `has`: some searches never ask.
  void prepare() {
    if (begin_ == end_ || !table_.empty()) return;
    shift_ = 64 - 3;
    while ((size_t{1} << (64 - shift_)) < 2 * size()) --shift_;
    table_.assign(size_t{1} << (64 - shift_), kEmpty);
    for (const int64_t* item = begin_; item < end_; ++item) {
      size_t place = place_of(static_cast<uint32_t>(*item));
      while (table_[place] != kEmpty) place = (place + 1) & (table_.size() - 1);
      table_[place] = static_cast<uint32_t>(*item);
    }
  }

  bool has(uint32_t item) const {
    if (table_.empty()) return false;
    size_t place = place_of(item);
    while (table_[place] != item && table_[place] != kEmpty) place = (place + 1) & (table_.size() - 1);
    return table_[place] == item;
  }

  // Leaves out scored items that were seen; how many are left.
  size_t without(float* scores, uint32_t* items, size_t count) const {
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      scores[kept] = scores[i], items[kept] = items[i];
      kept += !has(items[i]);
    }
    return kept;
  }

  const int64_t* begin() const { return begin_; }
  const int64_t* end() const { return end_; }
  size_t size() const { return static_cast<size_t>(end_ - begin_); }

 private:
  static constexpr uint32_t kEmpty = 0xffffffffu;  // no catalogue has so many items

  size_t place_of(uint32_t item) const { return item * 0x9E3779B97F4A7C15ull >> shift_; }

  const int64_t *begin_ = nullptr, *end_ = nullptr;
  std::vector<uint32_t> table_;
  int shift_ = 0;
};

class Query {
 public:
  struct alignas(64) Line {
    uint8_t byte[64];
  };
  std::vector<Line> lines;     // the table in bytes, (words, width), and a last row of bits
  bool plain = false;          // whether these are added in one byte that stops at 255, without averages, and its bits flipped
  std::vector<double> table;   // (words, 16)
  std::vector<uint64_t> hits;  // keys, in no order
  Seen seen;

  // Reads the table; false where it is not finite.
  bool set(const Request& request, size_t row) {
    words_ = request.words, k_ = request.k, lanes_ = request.lanes, width_ = static_cast<size_t>(lanes_->width);
    const float* entry = request.tables + row * 16 * static_cast<size_t>(words_);
    const size_t words = static_cast<size_t>(words_);
    table.resize(16 * words), low_.resize(words), most_.resize(words);
    if (!lanes_->read(entry, words_, table.data(), low_.data(), most_.data())) return false;
    if (request.indptr) seen.set(request.seen + request.indptr[row], request.seen + request.indptr[row + 1]);
    least_ = sizes_ = group_ = all_ = 0;
    floors_ = Floors::untried, floored_ = false, stale_ = true;
    double group = 0;
    for (size_t m = 0; m < words; ++m) {
      const double low = low_[m], most = most_[m];
      if (m % kGroup == 0) group = 0;
      group += most - low, all_ += most - low, least_ += low;
      group_ = std::max(group_, group);
      sizes_ += std::max(std::fabs(low), std::fabs(most));
    }
    unit_ = common_step();
    exact_ = unit_ > 0 && all_ / unit_ <= 300;
    hits.clear();
    hits.reserve(k_ ? k_ + slack() : 0);
    worst_ = 0;
    wanted_ = k_ ? -std::numeric_limits<float>::infinity() : least_above(request.threshold);
    raise_to(wanted_);
    return true;
  }

  // Have the table written in bytes, where it was not, or is to be written in another way.
  void prepare() {
    if (stale_) quantise();
  }

  // Write the table in bytes that tell all sums apart: without rounding where the entries are few whole steps.
  void quantise() {
    if (floored_) floored_ = false, floors_ = Floors::settled;
    if (exact_) lay_out(unit_, 0, Adding::up);
    else lay_out(unit_ > 0 && group_ / unit_ <= 255 ? unit_ : group_ / 255, levels(), Adding::averages);
  }

  // Write it anew where bytes that stop at 255 tell the sums about `needed` better apart than averages. They count from the
  // least sum, where a few items are far ahead of the k-th, as popular ones may be, and most of a table's span is theirs;
  // or from the greatest downwards, where few items come near it. False where it is well as it is.
  bool focus(double needed) {
    if (exact_) return prepare(), false;
    // A sum is rounded by half a step a word, and where averages are taken, by a quarter of a step each.
    const double averages = group_ / 255 * (1 + levels() / 16.0);
    const auto step_of = [&](double span, double steps) { return span > 0 ? span / steps : averages; };
    double up = step_of(needed - least_, kAimed), down = step_of(least_ + all_ - needed, kDeepest);
    if (floors_ == Floors::wanted) {
      raise_floors();
      floored_ = step_of(needed - floor_, kAimed) < kWorth * std::min({up, down, averages});
      floors_ = floored_ ? Floors::tried : Floors::settled, stale_ |= floored_;
    }
    if (floored_) up = step_of(needed - floor_, kAimed), down = averages;
    const double step = std::max(std::min(up, down), all_ * 1e-8);  // with more steps, a hair would be too narrow
    const Adding adding = step >= averages ? Adding::averages : up < down ? Adding::up : Adding::down;
    if (!stale_ && adding == adding_) {
      const double steps = step * steps_ * (adding == Adding::up ? kAimed : kDeepest);
      if (adding == Adding::averages || (adding == Adding::up ? steps <= kLate : kShallow <= steps && steps <= 254)) return false;
    }
    if (adding == Adding::averages) quantise();
    else lay_out(step, 0, adding);
    return true;
  }

  // So many of some items have passed. Where bytes made for the bar still let many pass, most of the span may lie below all
  // items that there are. The three least entries of a word then count as the fourth: no sum is understated, and
  // steps are smaller. It is kept if fewer pass.
  void passed(size_t count, size_t items) {
    const double share = static_cast<double>(count) / static_cast<double>(std::max<size_t>(items, 1));
    if (floors_ == Floors::untried && adding_ != Adding::averages && share > kMany) {
      floors_ = Floors::wanted, share_ = share;
    } else if (floors_ == Floors::tried && !stale_) {
      floors_ = Floors::settled;
      if (share > share_) floored_ = false, stale_ = true;
    }
  }

  // Bytes that were not made for the bar let too many pass: floors may be worth while from the start. They are kept then
  // whatever passes next, for the bar has yet to rise.
  void crowded() {
    if (floors_ == Floors::untried) floors_ = Floors::wanted, share_ = 1;
  }

  // The sum that an item with a scale in [smallest, largest] must have to be a hit.
  double needed(double smallest, double largest) const {
    return least_score_ > 0 ? least_score_ / largest : least_score_ / smallest;
  }

  // The least value that an item with a scale in [smallest, largest] must have to be a hit; over 255: none can be.
  int bar(double smallest, double largest) const {
    const double sum = needed(smallest, largest) - offset_;
    if (!(sum > 0)) return 0;
    if (steps_ == 0) return 256;
    const double steps = sum * steps_ - hair_;
    if (steps > greatest_) return 256;
    return static_cast<int>(std::ceil(std::clamp(steps, 0.0, 255.0)));
  }

  bool full() const { return k_ != 0 && hits.size() >= k_; }
  bool bounded() const { return k_ == 0 || worst_ != 0; }
  bool positive() const { return least_score_ > 0; }
  size_t k() const { return k_; }

  // A score may be a hit from here on: before it is rounded, and then.
  double least() const { return least_score_; }
  float wanted() const { return wanted_; }

  // Scored items that passed the filters; the k-th best score may be tied, and lost by its number. How many are hits for now.
  size_t offer(const float* scores, const uint32_t* items, size_t count) {
    const size_t before = hits.size();
    hits.resize(before + count + kRegister);
    const size_t kept = lanes_->keys(scores, items, count, worst_, hits.data() + before);
    hits.resize(before + kept);
    if (k_ != 0 && hits.size() >= k_ + slack()) settle();
    return kept;
  }

  // Keep the k best, and raise the bar to the worst of them.
  void settle() {
    if (k_ == 0 || hits.size() < k_ || (hits.size() == k_ && worst_ != 0)) return;  // nothing is new
    spare_.resize(hits.size() + kRegister);
    worst_ = lanes_->best(hits.data(), hits.size(), k_, spare_.data());
    hits.resize(k_);
    wanted_ = score_of(worst_);
    raise_to(wanted_);
  }

  // Forget the hits, but not the bar that they set: they are to be met again.
  void restart() {
    --worst_;  // it is not beaten by itself
    hits.clear();
  }

  // From here on items come with greater numbers than all before: they lose every tie with hits that are there.
  void later() {
    if (worst_ && full()) raise_to(std::nextafter(wanted_, std::numeric_limits<float>::infinity()));
  }

  void sort() {
    if (k_ != 0 && hits.size() > 2 * k_) settle();
    spare_.resize(hits.size() + kRegister);
    lanes_->sort(hits.data(), hits.size(), spare_.data());
    if (k_ != 0 && hits.size() > k_) hits.resize(k_);
  }

 private:
  int levels() const {
    int levels = 0;
    while ((kGroup << levels) < words_) ++levels;
    return levels;
  }

  // How bytes are added: in groups, and these averaged on some levels; or all in one byte that stops at 255, of steps above
  // the least entry of each word, or of steps below the greatest, and then flipped.
  enum class Adding { averages, up, down };

  // The greatest entries, of which the best items have most, are exact in bytes.
  void lay_out(double step, int levels, Adding adding) {
    plain = levels == 0, adding_ = adding, stale_ = false;
    const bool down = adding == Adding::down;
    const double inverse = step > 0 ? 1 / step : 0;
    const size_t end = static_cast<size_t>(words_) * width_;
    lines.resize((end + width_ + 63) / 64);
    uint8_t* const bytes = lines.data()->byte;
    const std::vector<double>& entries = floored_ ? raised_ : table;
    const int64_t span = lanes_->steps(entries.data(), most_.data(), words_, inverse, down, bytes);
    std::memset(bytes + end, down ? 255 : 0, width_);
    double sum = 0;
    for (const float most : most_) sum += most;
    steps_ = std::ldexp(inverse, -levels);
    hair_ = std::ldexp(words_ * 2 * kHair, -levels) + 1e-6;
    // sum ≤ offset + step · value; the last term is what a float64 sum of the entries may be off.
    offset_ = sum - step * (down ? 255 : static_cast<double>(span)) + (words_ + 4) * 0x1p-52 * sizes_;
    greatest_ = adding == Adding::up ? static_cast<double>(span) : 255;
  }

  void raise_floors() {
    raised_ = table, floor_ = 0;
    for (auto word = raised_.begin(); word != raised_.end(); word += 16) {
      std::array<double, 16> sorted;
      std::copy(word, word + 16, sorted.begin());
      std::nth_element(sorted.begin(), sorted.begin() + kFloor, sorted.end());
      std::transform(word, word + 16, word, [&](double entry) { return std::max(entry, sorted[kFloor]); });
      floor_ += sorted[kFloor];
    }
  }

  // So many hits more than k, and the bar is raised: seldom enough for its cost, often enough for its worth.
  size_t slack() const { return 16 + k_ / 4; }

  enum class Floors { untried, wanted, tried, settled };

  static constexpr double kMany = 1.0 / 64;  // share of items that pass, from which on floors are tried
  static constexpr double kWorth = 0.5;      // of a step's size is left with floors, at most: raised entries blur sums as well
  static constexpr size_t kFloor = 3;        // so many entries of a word count as the next one then
  static constexpr double kAimed = 190, kLate = 250;       // steps from the least sum to the bar, when new and when to renew
  static constexpr double kDeepest = 253, kShallow = 220;  // the same from the greatest sum down to the bar

  // The smallest float32 score over a threshold.
  static float least_above(double threshold) {
    const float near = static_cast<float>(std::clamp(threshold, -static_cast<double>(FLT_MAX), static_cast<double>(FLT_MAX)));
    const float up = std::numeric_limits<float>::infinity();
    return near > threshold ? near : std::nextafter(near, up);
  }

  // The least sum in float64 that is rounded to `score` or more.
  void raise_to(float score) {
    const double wanted = score;
    least_score_ = std::isinf(score) ? wanted : wanted - std::fabs(wanted) * 0x1.0001p-24 - 0x1p-149;
  }

  // The smallest difference of entries of the first word that differ, if all entries are whole multiples of it.
  double common_step() const {
    double step = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 16; ++i) {
      const double below = most_[0] - table[static_cast<size_t>(i)];
      if (below > 0) step = std::min(step, below);
    }
    if (std::isinf(step)) return 0;
    for (size_t i = 0; i < table.size(); ++i) {
      const double steps = (most_[i / 16] - table[i]) / step;
      if (!(std::fabs(steps - std::nearbyint(steps)) <= kHair / 2)) return 0;
    }
    return step;
  }

  const Lanes* lanes_ = nullptr;
  int words_ = 0;
  size_t k_ = 0, width_ = 0;
  std::vector<uint64_t> spare_;
  std::vector<float> low_, most_;                      // least and greatest entry of each word
  double unit_ = 0;                                    // the step of which all entries are whole multiples, or 0
  double least_ = 0, sizes_ = 0, group_ = 0, all_ = 0;  // sums: of the least, of sizes, of spans by group and of all
  double steps_ = 0, hair_ = 0, offset_ = 0;           // value of a sum: (sum - offset) * steps - hair, at least
  Floors floors_ = Floors::untried;
  bool floored_ = false, stale_ = false;               // the raised table is to be used; the bytes are to be written anew
  std::vector<double> raised_;                         // the table with every entry at least its word's floor
  double floor_ = 0, share_ = 0;                       // sum of the floors; share that passed before there were any
  Adding adding_ = Adding::averages;
  bool exact_ = false;                                 // the entries are few whole steps: bytes without rounding
  double greatest_ = 0;                                // the value that the greatest sum would have, if bytes did not stop at 255
  double least_score_ = 0;                             // a score, not yet rounded, that may be a hit
  float wanted_ = 0;                                   // a score that may be a hit: over the threshold, or at least the k-th
  uint64_t worst_ = 0;                                 // key of the k-th hit, 0 while there are fewer
};

}  // namespace hashlgn
