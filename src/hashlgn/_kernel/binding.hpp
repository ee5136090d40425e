// What the files of the binding share: array types, rules, arrays that Python owns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <vector>

#include "lanes.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace hashlgn {

template <class T, size_t N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Scale = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T, size_t N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

inline void require(bool holds, const char* rule) {
  if (!holds) throw nb::value_error(rule);
}

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> array(size_t size, T*& data) {
  data = new T[size];
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size}, nb::capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); }));
}

// Bounds of rows of a ragged array of `size` entries: they begin at 0 or later, and ascend.
inline void require_bounds(const In<int64_t, 1>& indptr, size_t size) {
  const int64_t* bounds = indptr.data();
  const size_t count = indptr.shape(0);
  for (size_t i = 0; i < count; ++i) require(bounds[i] >= (i ? bounds[i - 1] : 0), "indptr must ascend");
  require(count && static_cast<size_t>(bounds[count - 1]) <= size, "indptr must stay inside what it divides");
}

// The instruction sets of this machine, best first.
std::vector<const Lanes*> available();

void bind_histories(nb::module_& m);
void bind_lookup(nb::module_& m);

}  // namespace hashlgn
