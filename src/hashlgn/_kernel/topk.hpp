// The best items that a query has met so far, and the threshold that the next one must reach.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "lanes.hpp"

namespace hashlgn {

// With k = 0, every item over a given threshold instead.
class TopK {
 public:
  std::vector<uint64_t> hits;  // keys, in no order

  void start(const Lanes& lanes, size_t k, double threshold) {
    lanes_ = &lanes, k_ = k, worst_ = 0;
    hits.clear();
    hits.reserve(k_ ? k_ + slack() : 0);
    set_threshold(k_ ? -std::numeric_limits<float>::infinity() : least_above(threshold));
  }

  size_t k() const { return k_; }
  bool full() const { return k_ != 0 && hits.size() >= k_; }
  bool bounded() const { return k_ == 0 || worst_ != 0; }  // whether there is a threshold
  bool positive() const { return least_unrounded_ > 0; }

  // The least score of a hit, before it is rounded to float32, and after.
  double least_unrounded() const { return least_unrounded_; }
  float least_score() const { return least_score_; }

  // The least sum of a hit with a scale in [smallest, largest].
  double least_sum(double smallest, double largest) const {
    return least_unrounded_ > 0 ? least_unrounded_ / largest : least_unrounded_ / smallest;
  }

  // Scored items that passed the filters; how many of them are hits for now: one that ties with the k-th may lose by its number.
  size_t push(const float* scores, const uint32_t* items, size_t count) {
    const size_t before = hits.size();
    hits.resize(before + count + kRegister);
    const size_t kept = lanes_->keys(scores, items, count, worst_, hits.data() + before);
    hits.resize(before + kept);
    if (k_ != 0 && hits.size() >= k_ + slack()) select();
    return kept;
  }

  // Keeps the k best, and raises the threshold to the worst of them.
  void select() {
    if (k_ == 0 || hits.size() < k_ || (hits.size() == k_ && worst_ != 0)) return;  // nothing is new
    spare_.resize(hits.size() + kRegister);
    worst_ = lanes_->best(hits.data(), hits.size(), k_, spare_.data());
    hits.resize(k_);
    set_threshold(score_of(worst_));
  }

  // From here on, items have greater numbers than all before: they lose every tie with the hits.
  void lose_ties() {
    if (worst_ && full()) set_unrounded(std::nextafter(least_score_, std::numeric_limits<float>::infinity()));
  }

  void sort() {
    if (k_ != 0 && hits.size() > 2 * k_) select();
    spare_.resize(hits.size() + kRegister);
    lanes_->sort(hits.data(), hits.size(), spare_.data());
    if (k_ != 0 && hits.size() > k_) hits.resize(k_);
  }

 private:
  // So many hits beyond k, and the best are selected: seldom enough for what it costs, often enough for the threshold.
  size_t slack() const { return 16 + k_ / 4; }

  // The smallest float32 score over a threshold.
  static float least_above(double threshold) {
    const float near = static_cast<float>(std::clamp(threshold, -static_cast<double>(FLT_MAX), static_cast<double>(FLT_MAX)));
    const float up = std::numeric_limits<float>::infinity();
    return near > threshold ? near : std::nextafter(near, up);
  }

  void set_threshold(float score) { least_score_ = score, set_unrounded(score); }

  // A float64 score that is rounded to `score` or more is not smaller than this.
  void set_unrounded(float score) {
    const double wide = score;
    least_unrounded_ = std::isinf(score) ? wide : wide - std::fabs(wide) * 0x1.0001p-24 - 0x1p-149;
  }

  const Lanes* lanes_ = nullptr;
  size_t k_ = 0;
  uint64_t worst_ = 0;  // key of the k-th hit; 0 while there are fewer
  float least_score_ = 0;
  double least_unrounded_ = 0;
  std::vector<uint64_t> spare_;  // for selection and sorting
};

}  // namespace hashlgn
