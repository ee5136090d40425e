// What the files of the binding share: array types, rules, arrays that Python owns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <type_traits>
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

// What NumPy calls a type.
template <class T>
constexpr const char* kName = nullptr;
template <>
inline constexpr const char* kName<float> = "float32";
template <>
inline constexpr const char* kName<int64_t> = "int64";
template <>
inline constexpr const char* kName<int32_t> = "int32";
template <>
inline constexpr const char* kName<bool> = "bool";

// A new NumPy array of some shape and where its numbers are. NumPy makes it: to hand over an array of our own takes it four
// times as long, which a single call feels.
template <class T>
nb::object array(nb::handle shape, T*& data) {
  static PyObject* const empty = nb::object(nb::module_::import_("numpy").attr("empty")).release().ptr();
  static PyObject* const type = nb::object(nb::module_::import_("numpy").attr("dtype")(kName<T>)).release().ptr();
  PyObject* const arguments[] = {shape.ptr(), type};
  nb::object made = nb::steal(PyObject_Vectorcall(empty, arguments, 2, nullptr));
  Py_buffer view;
  if (!made.ptr() || PyObject_GetBuffer(made.ptr(), &view, PyBUF_WRITABLE)) throw nb::python_error();
  data = static_cast<T*>(view.buf);
  PyBuffer_Release(&view);
  return made;
}

template <class T>
nb::object array(size_t size, T*& data) {
  return array(nb::int_(size), data);
}

template <class T>
nb::object array_of(const std::vector<T>& values) {
  T* data;
  nb::object made = array(values.size(), data);
  std::copy(values.begin(), values.end(), data);
  return made;
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

void bind_answers(nb::module_& m);
void bind_histories(nb::module_& m);
void bind_lookup(nb::module_& m);
void bind_placing(nb::module_& m);

}  // namespace hashlgn
