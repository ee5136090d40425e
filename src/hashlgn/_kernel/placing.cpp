// The binding of what places an item: both of its vectors from the sums of its people's histories, and codes of vectors. The
// NumPy forms, in inference/placement.py and scoring/encoding.py, say what is computed and why.
#include "histories.hpp"

namespace hashlgn {
namespace {

// Solves A x = b in the place of b. A, (n, n), is symmetric and positive; its upper half becomes U of A = UᵀU (Cholesky).
// False where rounding has made it something else.
bool solve(double* a, size_t n, double* b) {
  for (size_t j = 0; j < n; ++j) {
    double* row = a + j * n;
    if (!(row[j] > 0)) return false;
    const double inverse = 1 / std::sqrt(row[j]);
    for (size_t k = j; k < n; ++k) row[k] *= inverse;
    for (size_t i = j + 1; i < n; ++i) {
      for (size_t k = i; k < n; ++k) a[i * n + k] -= row[i] * row[k];
    }
    b[j] /= row[j];
    for (size_t k = j + 1; k < n; ++k) b[k] -= b[j] * row[k];
  }
  for (size_t j = n; j-- > 0;) {
    for (size_t k = j + 1; k < n; ++k) b[j] -= a[j * n + k] * b[k];
    b[j] /= a[j * n + j];
  }
  return true;
}

class HeldPlacement {
 public:
  HeldPlacement(In<float, 1> mean, In<float, 2> axes, In<float, 1> signal, In<float, 2> answers, In<float, 2> histories,
                In<float, 2> stiffness, In<float, 1> levels, double exponent, double nothing, double noise, double reach, double doubt,
                double growth, double trust)
      : mean_(mean), axes_(axes), signal_(signal), answers_(answers), histories_(histories), stiffness_(stiffness),
        levels_{levels.data()[0], levels.data()[1]}, exponent_(exponent), nothing_(nothing), noise_(noise), reach_(reach),
        doubt_(doubt), growth_(growth), trust_(trust) {
    const size_t width = mean.shape(0), rows = signal.shape(0) + 2;
    require(axes.shape(0) == width && axes.shape(1) + 2 == rows, "axes must have shape (width, axes)");
    for (const In<float, 2>& side : {answers, histories}) {
      require(side.shape(0) == rows && side.shape(1) == width, "answers and histories must have shape (axes + 2, width)");
    }
    require(stiffness.shape(0) == width && stiffness.shape(1) == width, "stiffness must have shape (width, width)");
    require(levels.shape(0) == 2, "levels must be two numbers");
  }

  void estimates(In<double, 2> v, In<int64_t, 1> rows, In<float, 1> strengths, In<int64_t, 1> bounds, In<float, 2> own,
                 In<int64_t, 1> totals, Out<float, 2> o, Out<float, 2> p) const {
    const size_t width = mean_.shape(0), items = totals.shape(0);
    require_bounds(bounds, rows.shape(0));
    require(bounds.shape(0) == items + 1 && strengths.shape(0) == rows.shape(0), "bounds and strengths must fit items and rows");
    require(v.shape(1) == width && own.shape(0) == items && own.shape(1) == width, "v and own must be of this width");
    require(o.shape(0) == items && o.shape(1) == width && p.shape(0) == items && p.shape(1) == width, "o and p must have the shape of own");
    for (size_t e = 0; e < rows.shape(0); ++e) {
      require(rows.data()[e] >= 0 && static_cast<size_t>(rows.data()[e]) < v.shape(0), "rows must be of v");
    }
    const nb::gil_scoped_release released;
    estimate(v.data(), rows.data(), strengths.data(), bounds.data(), items, own.data(), totals.data(), o.data(), p.data());
  }

  // The same of items whose people's histories are stored. `own` is filled with the vectors of the items in `histories`.
  void place(const HeldCodes& histories, const Segments& stored, int64_t users, In<int64_t, 1> numbers, In<int64_t, 1> asked,
             In<int64_t, 1> bounds, In<int64_t, 1> totals, Out<float, 2> own, Out<float, 2> o, Out<float, 2> p) const {
    const size_t width = mean_.shape(0), items = numbers.shape(0);
    require(histories.width() == width, "histories must be of this width");
    require_bounds(bounds, asked.shape(0));
    require(bounds.shape(0) == items + 1 && totals.shape(0) == items, "bounds and totals must fit numbers");
    require_segments(stored);
    for (const Out<float, 2>& out : {own, o, p}) {
      require(out.shape(0) == items && out.shape(1) == width, "own, o and p must have one row per item");
    }
    const nb::gil_scoped_release released;
    for (size_t first = 0; first < items; first += kItems) {
      const size_t end = std::min(items, first + kItems);
      // A history that several items share is summed once.
      const int64_t *begin = asked.data() + bounds.data()[first], *last = asked.data() + bounds.data()[end];
      std::vector<int64_t> people(begin, last);
      std::sort(people.begin(), people.end());
      people.erase(std::unique(people.begin(), people.end()), people.end());
      std::vector<double> v(people.size() * width);
      for (size_t row = 0; row < people.size(); row += kRows) {
        Gathered found(stored, {people.data() + row, people.data() + std::min(people.size(), row + kRows)}, users);
        histories.sums(found, v.data() + row * width);
      }
      std::vector<int64_t> rows, ends{0};
      std::vector<float> strengths;
      for (size_t i = first; i < end; ++i) {
        const int64_t number = numbers.data()[i];
        histories.decode(number, own.data() + i * width);
        for (int64_t e = bounds.data()[i]; e < bounds.data()[i + 1]; ++e) {
          const int64_t user = asked.data()[e];
          rows.push_back(std::lower_bound(people.begin(), people.end(), user) - people.begin());
          strengths.push_back(strength_of(stored, user, number));
        }
        ends.push_back(static_cast<int64_t>(rows.size()));
      }
      estimate(v.data(), rows.data(), strengths.data(), ends.data(), end - first, own.data() + first * width, totals.data() + first,
               o.data() + first * width, p.data() + first * width);
    }
  }

 private:
  static constexpr size_t kItems = 256;    // that are placed at a time
  static constexpr size_t kRows = 2048;    // histories that are summed at a time
  static constexpr size_t kTogether = 16;  // items that share what is read of the constants

  // Unit queries of the people of some items, one item's after the other's, and of each item the mean with their weights.
  struct People {
    std::vector<float> units;       // (people, width)
    std::vector<size_t> bounds{0};  // of each item's
    std::vector<double> means;      // (items, width)
    std::vector<double> worths;     // of how many people each mean is; 0 where there is none
    size_t count(size_t item) const { return bounds[item + 1] - bounds[item]; }
  };

  void estimate(const double* v, const int64_t* rows, const float* strengths, const int64_t* bounds, size_t items, const float* own,
                const int64_t* totals, float* o, float* p) const {
    const size_t width = mean_.shape(0);
    for (size_t first = 0; first < items; first += kTogether) {
      const size_t some = std::min(kTogether, items - first);
      People people;
      for (size_t i = first; i < first + some; ++i) {
        const size_t begin = static_cast<size_t>(bounds[i]), end = static_cast<size_t>(bounds[i + 1]);
        add(people, v, rows + begin, strengths + begin, end - begin, own + i * width);
      }
      estimate(people, some, totals + first, o + first * width, p + first * width);
    }
  }

  // Adds an item's people.
  void add(People& people, const double* v, const int64_t* rows, const float* strengths, size_t count, const float* own) const {
    const size_t width = mean_.shape(0);
    std::vector<double> left(width), mean(width);
    double total = 0, squares = 0;
    people.bounds.push_back(people.bounds.back());
    for (size_t e = 0; e < count; ++e) {
      const double* sum = v + static_cast<size_t>(rows[e]) * width;
      double all = 0, rest = 0;
      for (size_t j = 0; j < width; ++j) {
        left[j] = sum[j] - static_cast<double>(strengths[e]) * static_cast<double>(own[j]);
        all += sum[j] * sum[j], rest += left[j] * left[j];
      }
      if (!(rest > nothing_ * all)) continue;
      const double length = std::sqrt(rest), weight = std::pow(length, -exponent_);
      people.units.resize(people.units.size() + width);
      float* unit = people.units.data() + people.bounds.back()++ * width;
      for (size_t j = 0; j < width; ++j) {
        mean[j] += weight * (left[j] / length);
        unit[j] = static_cast<float>(left[j] / length);
      }
      total += weight, squares += weight * weight;
    }
    if (total > 0) {
      for (double& number : mean) number /= total;
    }
    people.means.insert(people.means.end(), mean.begin(), mean.end());
    people.worths.push_back(total > 0 ? total * total / squares : 0);
  }

  void estimate(const People& people, size_t items, const int64_t* totals, float* o, float* p) const {
    const Lanes* lanes = available().front();
    const size_t width = mean_.shape(0), axes = signal_.shape(0), rows = axes + 2;
    std::vector<double> left(people.means), along(items * axes), factors(items * rows), answers(items * width), histories(items * width);
    for (size_t i = 0; i < left.size(); ++i) left[i] -= static_cast<double>(mean_.data()[i % width]);
    lanes->product(left.data(), items, width, axes_.data(), axes, along.data());
    for (size_t i = 0; i < items; ++i) {
      double* factor = factors.data() + i * rows;
      for (size_t k = 0; k < axes && people.count(i); ++k) {
        const double signal = static_cast<double>(signal_.data()[k]), most = reach_ * std::sqrt(signal + 1 / people.worths[i]);
        factor[k] = std::clamp(along[i * axes + k], -most, most) / (signal + noise_ / people.worths[i]);
      }
      factor[axes] = 1, factor[axes + 1] = std::log1p(static_cast<double>(totals[i]));
    }
    lanes->product(factors.data(), items, rows, answers_.data(), width, answers.data());
    lanes->product(factors.data(), items, rows, histories_.data(), width, histories.data());
    if (axes) draw(people, items, totals, lanes, answers.data());
    for (size_t i = 0; i < items; ++i) {
      const double total = static_cast<double>(totals[i]), share = total / (total + trust_);
      for (size_t j = i * width; j < (i + 1) * width; ++j) {
        o[j] = static_cast<float>(answers[j]), p[j] = static_cast<float>(histories[j] * share);
      }
    }
  }

  // Draws answers towards their people, and away from all others.
  void draw(const People& people, size_t items, const int64_t* totals, const Lanes* lanes, double* answers) const {
    const size_t width = mean_.shape(0);
    std::vector<float> moved(people.units.size());
    lanes->single(people.units.data(), people.bounds.back(), width, stiffness_.data(), width, moved.data());
    for (size_t i = 0; i < items; ++i) {
      const size_t first = people.bounds[i] * width;
      if (people.count(i)) {
        draw(people.units.data() + first, moved.data() + first, people.count(i), static_cast<double>(totals[i]), lanes, answers + i * width);
      }
    }
  }

  // The same of one answer: x are the queries of its n people, and `moved` their products with the stiffness.
  void draw(const float* x, const float* moved, size_t n, double total, const Lanes* lanes, double* o) const {
    const size_t width = mean_.shape(0);
    std::vector<float> turned(width * n), products(n * n);
    for (size_t e = 0; e < n; ++e) {
      for (size_t j = 0; j < width; ++j) turned[j * n + e] = x[e * width + j];
    }
    lanes->single(moved, n, width, turned.data(), n, products.data());
    std::vector<double> together(products.begin(), products.end()), away(n);
    const double asked = static_cast<double>(n), all = std::max(total, asked);
    const double level = levels_[0] + std::max(levels_[1] * std::log1p(total), levels_[1] * std::log1p(growth_ * total));
    for (size_t e = 0; e < n; ++e) {
      together[e * n + e] += (1 + doubt_ / all) * asked / all, away[e] = level;
      for (size_t j = 0; j < width; ++j) away[e] -= static_cast<double>(x[e * width + j]) * o[j];
    }
    if (!solve(together.data(), n, away.data())) return;  // of so many people, the mean says enough
    for (size_t e = 0; e < n; ++e) {
      for (size_t j = 0; j < width; ++j) o[j] += away[e] * static_cast<double>(moved[e * width + j]);
    }
  }

  In<float, 1> mean_;
  In<float, 2> axes_;
  In<float, 1> signal_;
  In<float, 2> answers_, histories_, stiffness_;
  double levels_[2], exponent_, nothing_, noise_, reach_, doubt_, growth_, trust_;
};

class HeldCoder {
 public:
  HeldCoder(In<float, 2> products, In<float, 2> gram, double length, double least, double most, size_t beam, size_t rounds)
      : products_(products), gram_(gram), length_(length), least_(least), most_(most), beam_(beam), rounds_(rounds) {
    require(products.shape(1) == gram.shape(0) && gram.shape(0) == gram.shape(1), "gram must be square and fit the products");
    require(gram.shape(0) && gram.shape(0) % 32 == 0, "gram must have 32 rows per byte");
    require(beam >= 1 && beam <= 1024, "beam must lie in 1 ... 1024");
    const size_t count = gram.shape(0);
    for (size_t c = 0; c < count; ++c) squares_.push_back(gram.data()[c * count + c]);
  }

  void code(In<float, 2> vectors, Out<uint8_t, 2> packed, Out<double, 1> scales) const {
    const size_t width = products_.shape(0), count = products_.shape(1), bytes = count / 32, rows = vectors.shape(0);
    require(vectors.shape(1) == width && packed.shape(0) == rows && packed.shape(1) == bytes && scales.shape(0) == rows,
            "packed and scales must have one row per vector");
    const nb::gil_scoped_release released;
    const Lanes* lanes = available().front();
    const Codewords codewords{gram_.data(), squares_.data(), 2 * bytes, beam_, rounds_};
    const size_t most = std::min<size_t>(rows, kTogether);
    std::vector<double> squares(most), dots(count);
    std::vector<int> exponents(most);
    std::vector<float> narrowed(most * width), sums(most * count), searched(count);
    std::vector<uint8_t> words(2 * bytes);
    for (size_t first = 0; first < rows; first += most) {
      const size_t some = std::min(most, rows - first);
      for (size_t i = 0; i < some; ++i) {
        exponents[i] = narrowed_row(vectors.data() + (first + i) * width, narrowed.data() + i * width, squares[i]);
      }
      lanes->single(narrowed.data(), some, width, products_.data(), count, sums.data());
      for (size_t i = 0; i < some; ++i) {
        widen(sums.data() + i * count, count, exponents[i], dots.data());
        const double times = std::sqrt(std::max(squares[i], 1e-24)) / length_;
        for (size_t j = 0; j < count; ++j) searched[j] = static_cast<float>(dots[j] / times);
        lanes->encode(codewords, searched.data(), words.data());
        scales.data()[first + i] = std::clamp(along(words, dots.data()) / std::max(square(words), 1e-12), least_, most_);
        uint8_t* code = packed.data() + (first + i) * bytes;
        for (size_t b = 0; b < bytes; ++b) code[b] = static_cast<uint8_t>(words[2 * b] | words[2 * b + 1] << 4);
      }
    }
  }

 private:
  static constexpr size_t kTogether = 64;  // vectors that share what is read of the products

  // A row for the product, its power of two, and its squared length.
  int narrowed_row(const float* vector, float* out, double& squares) const {
    std::vector<double> x(vector, vector + products_.shape(0));
    squares = 0;
    for (const double number : x) squares += number * number;
    return narrow(x.data(), x.size(), out);
  }

  // The inner product of a vector and a decoded code.
  static double along(const std::vector<uint8_t>& words, const double* dots) {
    double sum = 0;
    for (size_t m = 0; m < words.size(); ++m) sum += dots[16 * m + words[m]];
    return sum;
  }

  // The squared length of a decoded code: for each of its codewords the sum over all of them. Eight such sums are in flight, since
  // each addition waits for the one before.
  double square(const std::vector<uint8_t>& words) const {
    constexpr size_t kRows = 8;
    const size_t count = products_.shape(1);
    double total = 0;
    for (size_t first = 0; first < words.size(); first += kRows) {
      const size_t some = std::min(kRows, words.size() - first);
      const float* rows[kRows];
      double sums[kRows] = {};
      for (size_t r = 0; r < kRows; ++r) {
        const size_t m = first + std::min(r, some - 1);
        rows[r] = gram_.data() + (16 * m + words[m]) * count;
      }
      for (size_t l = 0; l < words.size(); ++l) {
        for (size_t r = 0; r < kRows; ++r) sums[r] += static_cast<double>(rows[r][16 * l + words[l]]);
      }
      for (size_t r = 0; r < some; ++r) total += sums[r];
    }
    return total;
  }

  In<float, 2> products_, gram_;
  std::vector<float> squares_;  // of the lengths of codewords
  double length_, least_, most_;
  size_t beam_, rounds_;
};

void decode(In<uint8_t, 2> packed, Scale scale, In<float, 2> codewords, Out<float, 2> out) {
  const size_t rows = packed.shape(0), bytes = packed.shape(1), width = codewords.shape(1);
  const bool half = scale.dtype() == nb::dlpack::dtype{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
  require(half || scale.dtype() == nb::dtype<float>(), "scale must be float16 or float32");
  require(codewords.shape(0) == 32 * bytes && scale.shape(0) == rows, "codewords and scale must fit the codes");
  require(out.shape(0) == rows && out.shape(1) == width, "out must have one row per code");
  const nb::gil_scoped_release released;
  for (size_t i = 0; i < rows; ++i) {
    const float times = half ? static_cast<float>(half_to_double(static_cast<const uint16_t*>(scale.data())[i]))
                             : static_cast<const float*>(scale.data())[i];
    decode_code(packed.data() + i * bytes, bytes, codewords.data(), width, times, out.data() + i * width);
  }
}

}  // namespace

void bind_placing(nb::module_& m) {
  nb::class_<HeldPlacement>(m, "Placement")
      .def(nb::init<In<float, 1>, In<float, 2>, In<float, 1>, In<float, 2>, In<float, 2>, In<float, 2>, In<float, 1>, double, double,
                    double, double, double, double, double>(),
           "mean"_a.noconvert(), "axes"_a.noconvert(), "signal"_a.noconvert(), "answers"_a.noconvert(), "histories"_a.noconvert(),
           "stiffness"_a.noconvert(), "levels"_a.noconvert(), "exponent"_a, "nothing"_a, "noise"_a, "reach"_a, "doubt"_a, "growth"_a,
           "trust"_a)
      .def("estimates", &HeldPlacement::estimates, "v"_a.noconvert(), "rows"_a.noconvert(), "strengths"_a.noconvert(),
           "bounds"_a.noconvert(), "own"_a.noconvert(), "totals"_a.noconvert(), "o"_a.noconvert(), "p"_a.noconvert())
      .def("place", &HeldPlacement::place, "histories"_a, "stored"_a, "users"_a, "numbers"_a.noconvert(), "asked"_a.noconvert(),
           "bounds"_a.noconvert(), "totals"_a.noconvert(), "own"_a.noconvert(), "o"_a.noconvert(), "p"_a.noconvert());
  nb::class_<HeldCoder>(m, "Coder")
      .def(nb::init<In<float, 2>, In<float, 2>, double, double, double, size_t, size_t>(), "products"_a.noconvert(), "gram"_a.noconvert(),
           "length"_a, "least"_a, "most"_a, "beam"_a, "rounds"_a)
      .def("code", &HeldCoder::code, "vectors"_a.noconvert(), "packed"_a.noconvert(), "scales"_a.noconvert());
  m.def("decode", &decode, "packed"_a.noconvert(), "scale"_a.noconvert(), "codewords"_a.noconvert(), "out"_a.noconvert());
}

}  // namespace hashlgn
