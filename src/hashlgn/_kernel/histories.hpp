// Histories as the kernel holds them: rows of stored users, and the items in them as codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "binding.hpp"

namespace hashlgn {

// Histories of some users, or of all up to a number.
class HeldRows {
 public:
  HeldRows(std::optional<In<int64_t, 1>> users, In<int64_t, 1> indptr, In<int32_t, 1> indices, std::optional<In<float, 1>> strengths,
           std::optional<In<int64_t, 1>> times, std::optional<In<bool, 1>> newer)
      : users_(users), indptr_(indptr), indices_(indices), strengths_(strengths), times_(times), newer_(newer) {
    require(indptr.shape(0) >= 1, "indptr must not be empty");
    require(indptr.data()[0] == 0 && static_cast<size_t>(indptr.data()[indptr.shape(0) - 1]) == indices.shape(0),
            "indptr must begin with 0 and end with the number of indices");
    require(!users || users->shape(0) + 1 == indptr.shape(0), "users must have one row each");
    require(!strengths || strengths->shape(0) == indices.shape(0), "strengths must have one number per index");
    require(!times || times->shape(0) == indices.shape(0), "times must have one number per index");
    require(!newer || newer->shape(0) == indices.shape(0), "newer must have one value per index");
  }

  // The row of a user, or none.
  std::optional<size_t> find(int64_t user) const {
    const size_t rows = indptr_.shape(0) - 1;
    if (!users_) return user >= 0 && static_cast<size_t>(user) < rows ? std::optional<size_t>(static_cast<size_t>(user)) : std::nullopt;
    const int64_t* end = users_->data() + rows;
    const int64_t* place = std::lower_bound(users_->data(), end, user);
    return place != end && *place == user ? std::optional<size_t>(static_cast<size_t>(place - users_->data())) : std::nullopt;
  }

  // The users who have an item, ascending. Of many interactions, the places of each group of items are noted first.
  template <class Visit>
  void each_user(int32_t item, const Visit& visit) {
    const int64_t* bounds = indptr_.data();
    const auto owner = [&](int64_t place) {
      const int64_t row = std::upper_bound(bounds, bounds + indptr_.shape(0), place) - bounds - 1;
      visit(users_ ? users_->data()[row] : row);
    };
    const int32_t* items = indices_.data();
    const int64_t size = static_cast<int64_t>(indices_.shape(0));
    if (size < kListed) {
      for (int64_t first = 0; first < size; first += kTogether) {
        const int64_t end = std::min(size, first + kTogether);
        int32_t found = 0;  // without a branch per number, so that many are compared at once
        for (int64_t place = first; place < end; ++place) found |= items[place] == item;
        for (int64_t place = first; found && place < end; ++place) {
          if (items[place] == item) owner(place);
        }
      }
      return;
    }
    if (starts_.empty()) list();
    const size_t group = static_cast<size_t>(item) >> shift_;
    if (item < 0 || group + 1 >= starts_.size()) return;
    for (int64_t at = starts_[group]; at < starts_[group + 1]; ++at) {
      if (items[places_[static_cast<size_t>(at)]] == item) owner(places_[static_cast<size_t>(at)]);
    }
  }

  bool weighted() const { return strengths_.has_value(); }
  const std::optional<In<float, 1>>& strengths() const { return strengths_; }
  const std::optional<In<int64_t, 1>>& times() const { return times_; }
  const std::optional<In<bool, 1>>& newer() const { return newer_; }
  const int32_t* items() const { return indices_.data(); }

  // Where a row begins and ends.
  std::pair<int64_t, int64_t> bounds(size_t row) const {
    const int64_t begin = indptr_.data()[row], end = indptr_.data()[row + 1];
    require(begin >= 0 && end >= begin && static_cast<size_t>(end) <= indices_.shape(0), "indptr must stay inside what it divides");
    return {begin, end};
  }

  // Ask memory for where a row is, and for the row.
  void ask_bounds(size_t row) const { __builtin_prefetch(indptr_.data() + row); }
  void ask(size_t row) const {
    constexpr int64_t kLine = 16, kMost = 16 * kLine;  // items
    const auto [begin, end] = bounds(row);
    for (int64_t place = begin; place < std::min(end, begin + kMost); place += kLine) __builtin_prefetch(indices_.data() + place);
  }

  // Adds the users of the rows to others.
  void add_users(std::vector<int64_t>& users) const {
    require(users_.has_value(), "segments must name their users");
    users.insert(users.end(), users_->data(), users_->data() + users_->shape(0));
  }

  // Adds a row to others.
  void add(size_t row, std::vector<int64_t>& items, std::vector<float>& strengths) const {
    const auto [begin, end] = bounds(row);
    items.insert(items.end(), indices_.data() + begin, indices_.data() + end);
    if (strengths_) strengths.insert(strengths.end(), strengths_->data() + begin, strengths_->data() + end);
  }

 private:
  static constexpr int64_t kListed = 10000;  // interactions
  static constexpr int64_t kTogether = 256;

  // Notes the places of interactions by groups of items: there are no more groups than interactions, whatever the catalogue's size.
  void list() {
    const int32_t *begin = indices_.data(), *end = begin + indices_.shape(0);
    require(*std::min_element(begin, end) >= 0, "indices must not be negative");
    const size_t most = static_cast<size_t>(*std::max_element(begin, end));
    for (shift_ = 0; (most >> shift_) >= indices_.shape(0);) ++shift_;
    const auto group = [&](int32_t item) { return static_cast<size_t>(item) >> shift_; };
    starts_.assign((most >> shift_) + 2, 0);
    for (const int32_t* item = begin; item != end; ++item) ++starts_[group(*item) + 1];
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    std::vector<int64_t> next(starts_.begin(), starts_.end() - 1);
    places_.resize(indices_.shape(0));
    for (const int32_t* item = begin; item != end; ++item) places_[static_cast<size_t>(next[group(*item)]++)] = item - begin;
  }

  std::vector<int64_t> starts_, places_;  // of interactions, by groups of 2^shift_ items
  int shift_ = 0;
  std::optional<In<int64_t, 1>> users_;
  In<int64_t, 1> indptr_;
  In<int32_t, 1> indices_;
  std::optional<In<float, 1>> strengths_;
  std::optional<In<int64_t, 1>> times_;
  std::optional<In<bool, 1>> newer_;
};

using Segments = std::vector<const HeldRows*>;

inline void require_segments(const Segments& segments) {
  for (const HeldRows* one : segments) require(one, "segments must not be None");
}

// The row of a user in the last segment that has one; null where none has.
inline std::pair<const HeldRows*, size_t> row_of(const Segments& segments, int64_t user) {
  for (size_t s = segments.size(); s-- > 0;) {
    if (const std::optional<size_t> row = segments[s]->find(user)) return {segments[s], *row};
  }
  return {nullptr, 0};
}

// The strength of an item in the history of a user, 1 where none are stored; 0 where it is not there.
inline float strength_of(const Segments& segments, int64_t user, int64_t item) {
  const auto [segment, row] = row_of(segments, user);
  if (!segment) return 0;
  const auto [begin, end] = segment->bounds(row);
  const int32_t* place = std::lower_bound(segment->items() + begin, segment->items() + end, item);
  if (place == segment->items() + end || *place != item) return 0;
  return segment->weighted() ? segment->strengths()->data()[place - segment->items()] : 1.0f;
}

// Rows of users one after the other: bounds, items, strengths. The last segment that has a user counts; who is in none has
// no history.
struct Gathered {
  std::vector<int64_t> bounds{0}, items;
  std::vector<float> strengths;  // empty where all are 1

  // Leaves out the items from a number on.
  void keep_below(int64_t end) {
    size_t kept = 0, next = 0;
    for (size_t row = 0; row + 1 < bounds.size(); ++row) {
      for (; next < static_cast<size_t>(bounds[row + 1]); ++next) {
        if (items[next] >= end) continue;
        if (!strengths.empty()) strengths[kept] = strengths[next];
        items[kept++] = items[next];
      }
      bounds[row + 1] = static_cast<int64_t>(kept);
    }
    items.resize(kept), strengths.resize(strengths.empty() ? 0 : kept);
  }

  Gathered() = default;
  Gathered(const Segments& segments, const std::vector<int64_t>& users, int64_t count) {
    require_segments(segments);
    require(std::all_of(segments.begin(), segments.end(), [&](const HeldRows* one) { return one->weighted() == segments[0]->weighted(); }),
            "all segments must have strengths, or none");
    std::vector<std::pair<const HeldRows*, size_t>> rows;
    for (const int64_t user : users) {
      require(user >= 0 && user < count, "users must be numbers of users");
      rows.push_back(row_of(segments, user));
      if (rows.back().first) rows.back().first->ask_bounds(rows.back().second);
    }
    for (size_t next = 0, i = 0; i < rows.size(); ++i) {
      for (; next < std::min(rows.size(), i + kAhead); ++next) {
        if (rows[next].first) rows[next].first->ask(rows[next].second);
      }
      if (rows[i].first) rows[i].first->add(rows[i].second, items, strengths);
      bounds.push_back(static_cast<int64_t>(items.size()));
    }
  }

 private:
  static constexpr size_t kAhead = 8;  // rows for which memory is asked in advance: they lie anywhere
};

// Items in histories as codes, in pages of one size: a change makes the pages anew in which something changes.
class HeldCodes {
 public:
  HeldCodes(std::vector<In<uint8_t, 2>> packed, std::vector<Scale> weight, In<float, 2> codewords)
      : packed_(std::move(packed)), weight_(std::move(weight)), codewords_(codewords) {
    settle();
  }

  HeldCodes changed(const std::vector<size_t>& places, const std::vector<In<uint8_t, 2>>& packed, const std::vector<Scale>& weight) const {
    require(places.size() == packed.size() && places.size() == weight.size(), "places must have one page each");
    HeldCodes made(*this);
    for (size_t i = 0; i < places.size(); ++i) {
      require(places[i] <= made.packed_.size(), "places must be of pages, or next to the last");
      if (places[i] == made.packed_.size()) made.packed_.push_back(packed[i]), made.weight_.push_back(weight[i]);
      else made.packed_[places[i]] = packed[i], made.weight_[places[i]] = weight[i];
    }
    made.settle();
    return made;
  }

  void histogram(In<int64_t, 1> indptr, In<int64_t, 1> indices, In<double, 1> strengths, Out<double, 2> out) const {
    require_bounds(indptr, indices.shape(0));
    require(indptr.data()[0] == 0 && strengths.shape(0) == indices.shape(0), "strengths must have one number per index");
    require(out.shape(0) + 1 == indptr.shape(0) && out.shape(1) == 32 * bytes_, "out must have one row per history");
    for (size_t e = 0; e < indices.shape(0); ++e) {
      require(indices.data()[e] >= 0 && static_cast<size_t>(indices.data()[e]) < count_, "item numbers must lie inside the arrays");
    }
    const nb::gil_scoped_release released;
    const auto strength = [&](size_t e) { return strengths.data()[e]; };
    const size_t n = 32 * bytes_;
    each_histogram(indptr.data(), out.shape(0), indices.data(), strength,
                   [&](size_t r, const double* histogram) { std::copy(histogram, histogram + n, out.data() + r * n); });
  }

  // The vector of an item; 0 of one that has no code.
  void decode(int64_t item, float* out) const {
    require(item >= 0, "item numbers must not be negative");
    if (static_cast<size_t>(item) < count_) {
      decode_code(code_of(item), bytes_, codewords_.data(), width(), static_cast<float>(weight_of(item)), out);
    } else {
      std::fill_n(out, width(), 0.0f);
    }
  }

  // Sums of histories, (rows, width), over the items that have codes. Works without the interpreter lock.
  void sums(Gathered& rows, double* out) const {
    rows.keep_below(static_cast<int64_t>(count_));
    for (const int64_t item : rows.items) require(item >= 0, "item numbers must lie inside the arrays");
    const auto strength = [&](size_t e) { return rows.strengths.empty() ? 1.0 : static_cast<double>(rows.strengths[e]); };
    each_sum(rows.bounds.data(), rows.bounds.size() - 1, rows.items.data(), strength,
             [&](size_t r, const double* v) { return std::copy(v, v + width(), out + r * width()), true; });
  }

  // Histogram, product and division in one call. None where the rows do not ascend, a strength is not positive and finite, or
  // a sum is not finite: the caller finds out which.
  nb::object queries(In<int64_t, 1> indptr, In<int64_t, 1> indices, std::optional<In<float, 1>> strengths) const {
    require(indptr.shape(0) >= 1, "indptr must not be empty");
    require(!strengths || strengths->shape(0) == indices.shape(0), "strengths must have one number per index");
    const size_t rows = indptr.shape(0) - 1;
    float* data;
    nb::object out = array(nb::make_tuple(rows, codewords_.shape(1)), data);
    bool made;
    {
      const nb::gil_scoped_release released;
      made = make(indptr.data(), rows, indices.data(), indices.shape(0), strengths ? strengths->data() : nullptr, data);
    }
    return made ? out : nb::object(nb::none());
  }

  // Queries (rows, width) of histories in compressed-row form; false as in `queries`. Works without the interpreter lock.
  bool make(const int64_t* indptr, size_t rows, const int64_t* items, size_t entries, const float* strengths, float* out) const {
    const size_t width = codewords_.shape(1);
    if (!ascending_rows(indptr, rows, items, entries, static_cast<int64_t>(count_))) return false;
    for (size_t e = 0; strengths && e < entries; ++e) {
      if (!(strengths[e] > 0 && std::isfinite(strengths[e]))) return false;
    }
    const auto strength = [&](size_t e) { return strengths ? static_cast<double>(strengths[e]) : 1.0; };
    return each_sum(indptr, rows, items, strength, [&](size_t r, const double* v) { return unit_rows(v, 1, width, out + r * width); });
  }

  size_t width() const { return codewords_.shape(1); }
  size_t size() const { return count_; }

 private:
  // Checks pages, and notes where they are.
  void settle() {
    require(!packed_.empty() && packed_.size() == weight_.size(), "weight must have one page per page of codes");
    const size_t size = packed_[0].shape(0);
    require(packed_.size() == 1 || (size && !(size & (size - 1))), "the size of a page must be a power of two");
    shift_ = packed_.size() == 1 ? 63 : __builtin_ctzll(size), mask_ = (uint64_t{1} << shift_) - 1, bytes_ = packed_[0].shape(1);
    half_ = weight_[0].dtype() == nb::dlpack::dtype{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(half_ || weight_[0].dtype() == nb::dtype<float>(), "weight must be float16 or float32");
    require(codewords_.shape(0) == 32 * bytes_, "codewords must fit the codes");
    pages_.clear(), count_ = 0;
    for (size_t i = 0; i < packed_.size(); ++i) {
      const size_t rows = packed_[i].shape(0);
      require(i + 1 == packed_.size() ? rows <= size : rows == size, "pages must have one size");
      require(packed_[i].shape(1) == bytes_ && weight_[i].dtype() == weight_[0].dtype(), "pages must have one type");
      require(weight_[i].shape(0) == rows, "weight must have one number per code");
      pages_.emplace_back(packed_[i].data(), weight_[i].data()), count_ += rows;
    }
  }

  const uint8_t* code_of(int64_t item) const {
    const uint64_t number = static_cast<uint64_t>(item);
    return pages_[number >> shift_].first + (number & mask_) * bytes_;
  }

  // Asks memory for what it has of an item: it may lie anywhere.
  void ask(int64_t item) const {
    const uint64_t number = static_cast<uint64_t>(item);
    __builtin_prefetch(code_of(item));
    __builtin_prefetch(static_cast<const char*>(pages_[number >> shift_].second) + (number & mask_) * (half_ ? 2 : 4));
  }

  // Visits the histogram of each history. Codes and weights lie anywhere in memory. So those of a history are all read before it is
  // summed: between additions, the processor would wait for one after the other.
  template <class Strength, class Visit>
  void each_histogram(const int64_t* indptr, size_t rows, const int64_t* items, const Strength& strength, const Visit& visit) const {
    const size_t entries = static_cast<size_t>(indptr[rows]);
    const std::unique_ptr<double[]> histogram(new double[32 * bytes_]);
    std::vector<uint8_t> codes;
    std::vector<double> weights;
    for (size_t e = 0; e < std::min(entries, kItemsAhead); ++e) ask(items[e]);
    for (size_t r = 0; r < rows; ++r) {
      const size_t begin = static_cast<size_t>(indptr[r]), count = static_cast<size_t>(indptr[r + 1]) - begin;
      codes.resize(std::max(codes.size(), count * bytes_)), weights.resize(std::max(weights.size(), count));
      for (size_t i = 0; i < count; ++i) {
        if (begin + i + kItemsAhead < entries) ask(items[begin + i + kItemsAhead]);
        std::memcpy(codes.data() + i * bytes_, code_of(items[begin + i]), bytes_);
        weights[i] = strength(begin + i) * weight_of(items[begin + i]);
      }
      histogram_of(count, [&](size_t i) { return weights[i]; }, [&](size_t i) { return codes.data() + i * bytes_; }, bytes_, histogram.get());
      visit(r, histogram.get());
    }
  }

  // Visits the sum of each history, as long as the visits return true; whether all did.
  template <class Strength, class Visit>
  bool each_sum(const int64_t* indptr, size_t rows, const int64_t* items, const Strength& strength, const Visit& visit) const {
    const size_t n = 32 * bytes_, width = codewords_.shape(1);
    const std::unique_ptr<double[]> v(new double[width]);
    const std::unique_ptr<float[]> narrowed(new float[rows * n]), sums(new float[rows * width]);
    std::vector<int> exponents(rows);
    each_histogram(indptr, rows, items, strength,
                   [&](size_t r, const double* histogram) { exponents[r] = narrow(histogram, n, narrowed.get() + r * n); });
    available().front()->single(narrowed.get(), rows, n, codewords_.data(), width, sums.get());
    for (size_t r = 0; r < rows; ++r) {
      widen(sums.get() + r * width, width, exponents[r], v.get());
      if (!visit(r, v.get())) return false;
    }
    return true;
  }

  double weight_of(int64_t item) const {
    const uint64_t number = static_cast<uint64_t>(item);
    const void* page = pages_[number >> shift_].second;
    return half_ ? half_to_double(static_cast<const uint16_t*>(page)[number & mask_])
                 : static_cast<double>(static_cast<const float*>(page)[number & mask_]);
  }

  static constexpr size_t kItemsAhead = 48;  // for which memory is asked in advance: it answers many requests at once

  std::vector<In<uint8_t, 2>> packed_;
  std::vector<Scale> weight_;
  In<float, 2> codewords_;
  std::vector<std::pair<const uint8_t*, const void*>> pages_;
  size_t count_ = 0, bytes_ = 0;
  uint64_t mask_ = 0;
  int shift_ = 63;
  bool half_ = false;
};

}  // namespace hashlgn
