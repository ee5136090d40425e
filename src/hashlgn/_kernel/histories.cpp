// The binding of histories: rows of stored users, and queries from codes.
#include <algorithm>
#include <cmath>
#include <memory>

#include "binding.hpp"

namespace hashlgn {
namespace {

bool ascending(In<int64_t, 1> indptr, In<int64_t, 1> indices, int64_t n) {
  return indptr.shape(0) && ascending_rows(indptr.data(), indptr.shape(0) - 1, indices.data(), indices.shape(0), n);
}

// Histories of some users, or of all up to a number.
class HeldRows {
 public:
  HeldRows(std::optional<In<int64_t, 1>> users, In<int64_t, 1> indptr, In<int32_t, 1> indices, std::optional<In<float, 1>> strengths)
      : users_(users), indptr_(indptr), indices_(indices), strengths_(strengths) {
    require(indptr.shape(0) >= 1, "indptr must not be empty");
    require(!users || users->shape(0) + 1 == indptr.shape(0), "users must have one row each");
    require(!strengths || strengths->shape(0) == indices.shape(0), "strengths must have one number per index");
  }

  // The row of a user, or none.
  std::optional<size_t> find(int64_t user) const {
    const size_t rows = indptr_.shape(0) - 1;
    if (!users_) return user >= 0 && static_cast<size_t>(user) < rows ? std::optional<size_t>(static_cast<size_t>(user)) : std::nullopt;
    const int64_t* end = users_->data() + rows;
    const int64_t* place = std::lower_bound(users_->data(), end, user);
    return place != end && *place == user ? std::optional<size_t>(static_cast<size_t>(place - users_->data())) : std::nullopt;
  }

  bool weighted() const { return strengths_.has_value(); }

  // Adds a row to others; false where its bounds lie outside.
  bool add(size_t row, std::vector<int64_t>& items, std::vector<float>& strengths) const {
    const int64_t begin = indptr_.data()[row], end = indptr_.data()[row + 1];
    if (begin < 0 || end < begin || static_cast<size_t>(end) > indices_.shape(0)) return false;
    items.insert(items.end(), indices_.data() + begin, indices_.data() + end);
    if (strengths_) strengths.insert(strengths.end(), strengths_->data() + begin, strengths_->data() + end);
    return true;
  }

 private:
  std::optional<In<int64_t, 1>> users_;
  In<int64_t, 1> indptr_;
  In<int32_t, 1> indices_;
  std::optional<In<float, 1>> strengths_;
};

// Rows of users one after the other: bounds, items, strengths. The last segment that has a user counts; who is in none has
// no history.
struct Gathered {
  std::vector<int64_t> bounds{0}, items;
  std::vector<float> strengths;

  Gathered(const std::vector<const HeldRows*>& segments, const In<int64_t, 1>& users, int64_t count) {
    for (size_t i = 0; i < users.shape(0); ++i) {
      require(users.data()[i] >= 0 && users.data()[i] < count, "users must be numbers of users");
      for (size_t s = segments.size(); s-- > 0;) {
        require(segments[s], "segments must not be None");
        const std::optional<size_t> row = segments[s]->find(users.data()[i]);
        if (!row) continue;
        require(segments[s]->add(*row, items, strengths), "indptr must stay inside what it divides");
        break;
      }
      bounds.push_back(static_cast<int64_t>(items.size()));
    }
    require(strengths.empty() || strengths.size() == items.size(), "all segments must have strengths, or none");
  }
};

nb::tuple gather(const std::vector<const HeldRows*>& segments, In<int64_t, 1> users, int64_t count) {
  const Gathered found(segments, users, count);
  const bool weighted = !segments.empty() && segments[0]->weighted();
  return nb::make_tuple(array_of(found.bounds), array_of(found.items), weighted ? array_of(found.strengths) : nb::object(nb::none()));
}

// Items in histories as codes.
class HeldCodes {
 public:
  HeldCodes(In<uint8_t, 2> packed, Scale weight, In<float, 2> codewords) : packed_(packed), weight_(weight), codewords_(codewords) {
    half_ = weight.dtype() == nb::dlpack::dtype{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(half_ || weight.dtype() == nb::dtype<float>(), "weight must be float16 or float32");
    require(weight.shape(0) == packed.shape(0), "weight must have one number per code");
    require(codewords.shape(0) == 32 * packed.shape(1), "codewords must fit the codes");
  }

  // Histogram, product and division in one call. None where the rows do not ascend, a strength is not positive and finite, or
  // a sum is not finite: the caller finds out which.
  nb::object queries(In<int64_t, 1> indptr, In<int64_t, 1> indices, std::optional<In<float, 1>> strengths) const {
    require(indptr.shape(0) >= 1, "indptr must not be empty");
    require(!strengths || strengths->shape(0) == indices.shape(0), "strengths must have one number per index");
    const size_t rows = indptr.shape(0) - 1;
    float* data;
    nb::object out = array(nb::make_tuple(rows, codewords_.shape(1)), data);
    if (make(indptr.data(), rows, indices.data(), indices.shape(0), strengths ? strengths->data() : nullptr, data)) return out;
    return nb::none();
  }

  // Bounds, items and queries of stored histories, and whether one is empty.
  nb::object stored(const std::vector<const HeldRows*>& segments, In<int64_t, 1> users, int64_t count) const {
    const Gathered found(segments, users, count);
    const size_t rows = users.shape(0);
    float* data;
    nb::object out = array(nb::make_tuple(rows, codewords_.shape(1)), data);
    const float* strengths = found.strengths.empty() ? nullptr : found.strengths.data();
    if (!make(found.bounds.data(), rows, found.items.data(), found.items.size(), strengths, data)) return nb::none();
    const bool empty = std::adjacent_find(found.bounds.begin(), found.bounds.end()) != found.bounds.end();
    return nb::make_tuple(array_of(found.bounds), array_of(found.items), out, empty);
  }

 private:
  bool make(const int64_t* indptr, size_t rows, const int64_t* items, size_t entries, const float* strengths, float* out) const {
    const nb::gil_scoped_release released;
    const size_t bytes = packed_.shape(1), width = codewords_.shape(1);
    if (!ascending_rows(indptr, rows, items, entries, static_cast<int64_t>(packed_.shape(0)))) return false;
    for (size_t e = 0; strengths && e < entries; ++e) {
      if (!(strengths[e] > 0 && std::isfinite(strengths[e]))) return false;
    }
    std::unique_ptr<double[]> weights(new double[entries]), h(new double[rows * 32 * bytes]), v(new double[rows * width]);
    for (size_t e = 0; e < entries; ++e) {
      const double w = half_ ? half_to_double(static_cast<const uint16_t*>(weight_.data())[items[e]])
                             : static_cast<double>(static_cast<const float*>(weight_.data())[items[e]]);
      weights[e] = strengths ? static_cast<double>(strengths[e]) * w : w;
    }
    histograms(indptr, rows, items, [&](int64_t e) { return weights[static_cast<size_t>(e)]; }, packed_.data(), bytes, h.get());
    available().front()->product(h.get(), rows, 32 * bytes, codewords_.data(), width, v.get());
    return unit_rows(v.get(), rows, width, out);
  }

  In<uint8_t, 2> packed_;
  Scale weight_;
  In<float, 2> codewords_;
  bool half_ = false;
};

}  // namespace

void bind_histories(nb::module_& m) {
  nb::class_<HeldRows>(m, "Rows").def(
      nb::init<std::optional<In<int64_t, 1>>, In<int64_t, 1>, In<int32_t, 1>, std::optional<In<float, 1>>>(), "users"_a.noconvert().none(),
      "indptr"_a.noconvert(), "indices"_a.noconvert(), "strengths"_a.noconvert() = nb::none());
  nb::class_<HeldCodes>(m, "HistoryCodes")
      .def(nb::init<In<uint8_t, 2>, Scale, In<float, 2>>(), "packed"_a.noconvert(), "weight"_a.noconvert(), "codewords"_a.noconvert())
      .def("queries", &HeldCodes::queries, "indptr"_a.noconvert(), "indices"_a.noconvert(), "strengths"_a.noconvert() = nb::none())
      .def("stored", &HeldCodes::stored, "segments"_a, "users"_a.noconvert(), "count"_a);
  m.def("gather", &gather, "segments"_a, "users"_a.noconvert(), "count"_a);
  m.def("ascending", &ascending, "indptr"_a.noconvert(), "indices"_a.noconvert(), "n"_a);
}

}  // namespace hashlgn
