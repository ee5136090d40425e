// The binding of ids: their numbers, and back, a few at a time and without a column in between.
#include <algorithm>
#include <cstring>

#include "lookup.hpp"

namespace hashlgn {
namespace {

// Places of keys in ascending numbers, as std::lower_bound gives them. All keys go down together: what each step reads lies
// anywhere in memory, and so the processor waits for all of them at once.
template <class T>
std::vector<size_t> places(const T* ordered, size_t count, const std::vector<T>& keys) {
  std::vector<size_t> low(keys.size(), 0);
  for (size_t left = count; left > 0;) {
    const size_t half = left / 2;
    for (size_t i = 0; i < keys.size(); ++i) low[i] += ordered[low[i] + half] < keys[i] ? left - half : 0;
    left = half;
  }
  return low;
}

void require_numbers(const In<int64_t, 1>& numbers, size_t count) {
  for (size_t i = 0; i < numbers.shape(0); ++i) {
    require(numbers.data()[i] >= 0 && static_cast<size_t>(numbers.data()[i]) < count, "numbers must be of ids");
  }
}

class HeldIntegers final : public HeldIds {
 public:
  HeldIntegers(In<int64_t, 1> values, In<int64_t, 1> ordered, std::optional<In<int32_t, 1>> order)
      : values_(values), ordered_(ordered), order_(order) {
    const size_t n = values.shape(0);
    require(ordered.shape(0) == n && (!order || order->shape(0) == n), "ordered and order must have one number per id");
    gapless_ = n && !order && static_cast<uint64_t>(values.data()[n - 1]) - static_cast<uint64_t>(values.data()[0]) == n - 1;
  }

  size_t size() const override { return values_.shape(0); }
  nb::object id(int64_t number) const override { return nb::int_(values_.data()[number]); }
  const int64_t* integers() const override { return values_.data(); }

  bool find(nb::list wanted, std::vector<int64_t>& keys) const override {
    for (nb::handle value : wanted) {
      int overflow = 0;
      if (!PyLong_CheckExact(value.ptr())) return false;
      keys.push_back(PyLong_AsLongLongAndOverflow(value.ptr(), &overflow));
      if (overflow) return false;
    }
    const size_t n = size();
    if (gapless_) {
      for (int64_t& key : keys) {
        const uint64_t place = static_cast<uint64_t>(key) - static_cast<uint64_t>(values_.data()[0]);
        if (place >= n) return false;
        key = static_cast<int64_t>(place);
      }
      return true;
    }
    const std::vector<size_t> found = places(ordered_.data(), n, keys);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (found[i] >= n || ordered_.data()[found[i]] != keys[i]) return false;
      keys[i] = order_ ? order_->data()[found[i]] : static_cast<int64_t>(found[i]);
    }
    return true;
  }

  nb::object decode(In<int64_t, 1> numbers) const {
    require_numbers(numbers, size());
    int64_t* data;
    nb::object out = array<int64_t>(numbers.shape(0), data);
    for (size_t i = 0; i < numbers.shape(0); ++i) data[i] = values_.data()[numbers.data()[i]];
    return out;
  }

 private:
  In<int64_t, 1> values_, ordered_;
  std::optional<In<int32_t, 1>> order_;
  bool gapless_ = false;
};

class HeldTexts final : public HeldIds {
 public:
  HeldTexts(In<uint8_t, 1> utf8, In<int64_t, 1> offsets, In<uint64_t, 1> hashes, In<int32_t, 1> order, uint64_t base)
      : utf8_(utf8), offsets_(offsets), hashes_(hashes), order_(order), base_(base) {
    const size_t n = hashes.shape(0);
    require(offsets.shape(0) == n + 1 && order.shape(0) == n, "offsets and order must fit the hashes");
  }

  size_t size() const override { return hashes_.shape(0); }

  bool find(nb::list wanted, std::vector<int64_t>& numbers) const override {
    std::vector<uint64_t> keys;
    std::vector<std::pair<const char*, size_t>> texts;
    for (nb::handle value : wanted) {
      if (!PyUnicode_CheckExact(value.ptr())) return false;
      Py_ssize_t size = 0;
      const char* text = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
      if (!text) {  // half of a surrogate pair: no id has it
        PyErr_Clear();
        return false;
      }
      uint64_t hash = 0;
      for (Py_ssize_t i = 0; i < size; ++i) hash = hash * base_ + static_cast<uint8_t>(text[i]) + 1;
      keys.push_back(hash);
      texts.emplace_back(text, static_cast<size_t>(size));
    }
    std::vector<size_t> found = places(hashes_.data(), hashes_.shape(0), keys);
    for (const size_t place : found) {
      if (place < hashes_.shape(0)) __builtin_prefetch(order_.data() + place);
    }
    for (const size_t place : found) {
      if (place < hashes_.shape(0)) ask(order_.data()[place]);
    }
    numbers.resize(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      size_t place = found[i];
      while (place < hashes_.shape(0) && hashes_.data()[place] == keys[i] && !same(order_.data()[place], texts[i])) ++place;
      if (place >= hashes_.shape(0) || hashes_.data()[place] != keys[i]) return false;
      numbers[i] = order_.data()[place];
    }
    return true;
  }

  nb::list decode(In<int64_t, 1> numbers) const {
    constexpr size_t kAhead = 8;
    require_numbers(numbers, hashes_.shape(0));
    const size_t count = numbers.shape(0);
    for (size_t i = 0; i < count; ++i) __builtin_prefetch(offsets_.data() + numbers.data()[i]);
    nb::list out;
    for (size_t i = 0; i < count; ++i) {
      if (i + kAhead < count) ask(numbers.data()[i + kAhead]);
      out.append(id(numbers.data()[i]));
    }
    return out;
  }

  nb::object id(int64_t number) const override {
    const auto [begin, size] = span(number);
    PyObject* text = PyUnicode_DecodeUTF8(begin, static_cast<Py_ssize_t>(size), nullptr);
    if (!text) throw nb::python_error();
    return nb::steal(text);
  }

 private:
  // The bytes of an id; of a damaged file, what lies inside.
  std::pair<const char*, size_t> span(int64_t number) const {
    const int64_t size = static_cast<int64_t>(utf8_.shape(0));
    const int64_t begin = std::clamp<int64_t>(offsets_.data()[number], 0, size);
    const int64_t end = std::clamp<int64_t>(offsets_.data()[number + 1], begin, size);
    return {reinterpret_cast<const char*>(utf8_.data()) + begin, static_cast<size_t>(end - begin)};
  }

  bool inside(int64_t number) const { return number >= 0 && static_cast<size_t>(number) < hashes_.shape(0); }
  void ask(int64_t number) const {
    if (inside(number)) __builtin_prefetch(utf8_.data() + offsets_.data()[number]);
  }

  bool same(int64_t number, const std::pair<const char*, size_t>& text) const {
    if (!inside(number)) return false;
    const auto [begin, size] = span(number);
    return size == text.second && std::memcmp(begin, text.first, size) == 0;
  }

  In<uint8_t, 1> utf8_;
  In<int64_t, 1> offsets_;
  In<uint64_t, 1> hashes_;
  In<int32_t, 1> order_;
  uint64_t base_;
};

}  // namespace

void bind_lookup(nb::module_& m) {
  nb::class_<HeldIds>(m, "Ids").def(
      "find",
      [](const HeldIds& ids, nb::list wanted) {
        std::vector<int64_t> numbers;
        return ids.find(wanted, numbers) ? array_of(numbers) : nb::object(nb::none());
      },
      "wanted"_a);
  nb::class_<HeldIntegers, HeldIds>(m, "Integers")
      .def(nb::init<In<int64_t, 1>, In<int64_t, 1>, std::optional<In<int32_t, 1>>>(), "values"_a.noconvert(), "ordered"_a.noconvert(),
           "order"_a.noconvert() = nb::none())
      .def("decode", &HeldIntegers::decode, "numbers"_a.noconvert());
  nb::class_<HeldTexts, HeldIds>(m, "Texts")
      .def(nb::init<In<uint8_t, 1>, In<int64_t, 1>, In<uint64_t, 1>, In<int32_t, 1>, uint64_t>(), "utf8"_a.noconvert(),
           "offsets"_a.noconvert(), "hashes"_a.noconvert(), "order"_a.noconvert(), "base"_a)
      .def("decode", &HeldTexts::decode, "numbers"_a.noconvert());
}

}  // namespace hashlgn
