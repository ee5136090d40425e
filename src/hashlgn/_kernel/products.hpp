// Products whose bits depend on nothing but their row: one multiplication and one addition a term, in a fixed order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace hashlgn {

// A finite half: its bits lie in a float's, 112 powers of two too low.
inline double half_to_double(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  return static_cast<double>(value) * (half & 0x8000 ? -0x1p112 : 0x1p112);
}

constexpr size_t kProductQueries = 4;  // rows of x that share what is read of y: their sums fill half of 16 registers

// Products and sums are of type T, of which a register has N. Lanes of a register are columns, so that no sum is split.
template <class T, int N>
struct Products {
  typedef T Wide __attribute__((vector_size(sizeof(T) * N)));
  struct Columns {
    Wide a, b;
  };
  static constexpr size_t kColumns = 2 * N;

  // out[q, :] = Σ_j x[q, j] · y[j, :], j ascending, without the terms whose x is 0. The shapes are (queries, n), (n, width)
  // and (queries, width). A sum starts at +0, so it is never −0, and to add a zero to it changes nothing: only where a y is
  // not finite must the zeros be left out.
  static void product(const T* x, size_t queries, size_t n, const float* y, size_t width, T* out) {
    size_t done = 0;
    if (queries >= kProductQueries && finite(y, n * width)) {
      // Two rows that are left, or three, take as long as four: zeros fill them up.
      const size_t left = queries % kProductQueries, whole = queries - left;
      done = left > 1 ? queries : whole;
      std::vector<T> padded(left > 1 ? kProductQueries * n : 0), sums(kProductQueries * width);
      if (left > 1) std::copy(x + whole * n, x + queries * n, padded.begin());
      std::vector<Columns> strip(n);
      for (size_t first = 0; first < width; first += kColumns) {
        const size_t count = std::min(kColumns, width - first);
        if (count == kColumns) fill<kColumns>(y + first, width, count, strip);
        else fill<0>(y + first, width, count, strip);
        for (size_t q = 0; q < whole; q += kProductQueries) together(x + q * n, n, strip.data(), out + q * width + first, width, count);
        if (left > 1) together(padded.data(), n, strip.data(), sums.data() + first, width, count);
      }
      if (left > 1) std::copy(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(left * width), out + whole * width);
    }
    for (size_t q = done; q < queries; ++q) alone(x + q * n, n, y, width, out + q * width);
  }

 private:
  // Without a branch per number, so that it runs over whole registers.
  static bool finite(const float* values, size_t count) {
    uint32_t odd = 0;
    for (size_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, values + i, 4);
      odd |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !odd;
  }

  // `Count` columns of y, or `count` of them.
  template <size_t Count>
  static void fill(const float* y, size_t width, size_t count, std::vector<Columns>& strip) {
    for (Columns& row : strip) {
      T columns[kColumns] = {};
      for (size_t i = 0; i < (Count ? Count : count); ++i) columns[i] = y[i];
      __builtin_memcpy(&row, columns, sizeof(columns));
      y += width;
    }
  }

  static void together(const T* x, size_t n, const Columns* strip, T* out, size_t width, size_t count) {
    Columns sums[kProductQueries] = {};
    for (size_t j = 0; j < n; ++j) {
      const Columns columns = strip[j];
      for (size_t q = 0; q < kProductQueries; ++q) sums[q].a += x[q * n + j] * columns.a, sums[q].b += x[q * n + j] * columns.b;
    }
    for (size_t q = 0; q < kProductQueries; ++q) __builtin_memcpy(out + q * width, &sums[q], count * sizeof(T));
  }

  static void alone(const T* x, size_t n, const float* y, size_t width, T* out) {
    constexpr size_t kRows = 4;  // rows of y added at a time: sums are read and written that much more seldom
    constexpr size_t kAheadRows = 16;  // that are asked of memory in advance: a scan has pushed them out of the caches
    std::fill(out, out + width, T{0});
    const float* rows[kRows];
    T factors[kRows];
    size_t held = 0;
    for (size_t j = 0; j < n; ++j) {
      if (x[j] == 0) continue;
      rows[held] = y + j * width, factors[held++] = x[j];
      for (size_t i = 0; i < width; i += 16) __builtin_prefetch(y + std::min(j + kAheadRows, n - 1) * width + i);
      if (held == kRows) add<kRows>(factors, rows, width, out), held = 0;
    }
    for (size_t i = 0; i < held; ++i) add<1>(factors + i, rows + i, width, out);
  }

  template <size_t R>
  static void add(const T* factors, const float* const* rows, size_t width, T* __restrict out) {
    const float* held[R];
    std::copy(rows, rows + R, held);
    for (size_t i = 0; i < width; ++i) {
      T sum = out[i];
      for (size_t r = 0; r < R; ++r) sum += factors[r] * static_cast<T>(held[r][i]);
      out[i] = sum;
    }
  }
};

// The exponent of the number of the greatest size, as std::frexp gives it, inside -1000 ... 1000; none where one is not finite.
// Upper halves are compared, since many integers are at once.
static inline std::optional<int> exponent_of(const double* x, size_t n) {
  uint32_t greatest = 0;
  for (size_t j = 0; j < n; ++j) {
    uint64_t bits;
    std::memcpy(&bits, x + j, 8);
    greatest = std::max(greatest, static_cast<uint32_t>(bits >> 32) & 0x7fffffffu);
  }
  const int exponent = static_cast<int>(greatest >> 20);
  return exponent == 0x7ff ? std::nullopt : std::optional(std::clamp(exponent - 1022, -1000, 1000));
}

// Rounds a row to floats, after a power of two has brought its numbers under 1: then no product with them leaves the range of floats
// where it need not. The power's exponent.
static inline int narrow(const double* x, size_t n, float* out) {
  const int exponent = exponent_of(x, n).value_or(0);
  const double factor = std::ldexp(1.0, -exponent);
  for (size_t j = 0; j < n; ++j) out[j] = static_cast<float>(x[j] * factor);
  return exponent;
}

// Takes the power of two back.
static inline void widen(const float* x, size_t n, int exponent, double* out) {
  const double factor = std::ldexp(1.0, exponent);
  for (size_t j = 0; j < n; ++j) out[j] = static_cast<double>(x[j]) * factor;
}

// The vector of a code: the sum of the codewords (16 sub-codes, width) that it names, sub-code after sub-code, times a scale.
inline void decode_code(const uint8_t* code, size_t bytes, const float* codewords, size_t width, float scale, float* __restrict out) {
  std::fill_n(out, width, 0.0f);
  for (size_t m = 0; m < 2 * bytes; ++m) {
    const float* codeword = codewords + (16 * m + (code[m / 2] >> 4 * (m % 2) & 15)) * width;
    for (size_t j = 0; j < width; ++j) out[j] += codeword[j];
  }
  for (size_t j = 0; j < width; ++j) out[j] *= scale;
}

// out[q, l] = Σ_j x[q, j] · y[chosen[q, l], j], j ascending, without the terms whose x is 0.
inline void chosen_products(const double* x, size_t queries, size_t n, const float* y, const int64_t* chosen, size_t length,
                            double* out) {
  constexpr size_t kTogether = 8;  // sums in flight: an addition takes some cycles
  for (size_t q = 0; q < queries; ++q, x += n, chosen += length, out += length) {
    for (size_t first = 0; first < length; first += kTogether) {
      const size_t count = std::min(kTogether, length - first);
      const float* rows[kTogether];
      double sums[kTogether] = {};
      for (size_t i = 0; i < kTogether; ++i) rows[i] = y + static_cast<size_t>(chosen[first + std::min(i, count - 1)]) * n;
      for (size_t j = 0; j < n; ++j) {
        if (x[j] == 0) continue;
        for (size_t i = 0; i < kTogether; ++i) sums[i] += x[j] * static_cast<double>(rows[i][j]);
      }
      std::copy(sums, sums + count, out + first);
    }
  }
}

// out[r, :] = Σ_e weights[e] · vectors[indices[e], :] over the entries e of row r, ascending.
inline void weighted_sums(const int64_t* indptr, size_t rows, const int64_t* indices, const double* weights,
                          const float* vectors, size_t width, double* out) {
  std::fill(out, out + rows * width, 0.0);
  for (size_t r = 0; r < rows; ++r, out += width) {
    for (int64_t e = indptr[r]; e < indptr[r + 1]; ++e) {
      const float* vector = vectors + static_cast<size_t>(indices[e]) * width;
      for (size_t j = 0; j < width; ++j) out[j] += weights[e] * static_cast<double>(vector[j]);
    }
  }
}

// out[m, k] = Σ_e weight(e) · [sub-code m of code(e) is k] over the entries e of a history, 0 … count − 1.
// `code` gives where a code is, two sub-codes a byte, `bytes` in all.
template <class Weight, class Code>
void histogram_of(size_t count, const Weight& weight, const Code& code, size_t bytes, double* out) {
  std::fill(out, out + bytes * 32, 0.0);
  for (size_t e = 0; e < count; ++e) {
    const uint8_t* subcodes = code(e);
    const double w = weight(e);
    const auto add = [w](double* cells, uint64_t part) { cells[part & 15] += w, cells[16 + (part >> 4 & 15)] += w; };
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {  // in a register: as far as a compiler knows, each addition changes the code in memory
      uint64_t part;
      std::memcpy(&part, subcodes + i, 8);
#pragma GCC unroll 8
      for (size_t b = 0; b < 8; ++b) add(out + 32 * (i + b), part >> 8 * b);
    }
    for (; i < bytes; ++i) add(out + 32 * i, subcodes[i]);
  }
}

// out[r, :] = v[r, :] / ‖v[r, :]‖, rounded to float32; zeros where the length is 0. A power of two, which changes no bit of a
// quotient, keeps squares inside float64; their sum ascends. False where a number is not finite.
inline bool unit_rows(const double* v, size_t rows, size_t width, float* out) {
  for (size_t r = 0; r < rows; ++r, v += width, out += width) {
    const std::optional<int> exponent = exponent_of(v, width);
    if (!exponent) return false;
    const double factor = std::ldexp(1.0, -*exponent);
    double squares = 0;
    for (size_t j = 0; j < width; ++j) squares += (v[j] * factor) * (v[j] * factor);
    const double length = std::sqrt(squares);
    for (size_t j = 0; j < width; ++j) out[j] = length > 0 ? static_cast<float>(v[j] * factor / length) : 0.0f;
  }
  return true;
}

// Some rows of a ragged array one after the other, and their bounds; false where a row is none, or lies outside.
inline bool gather_rows(const int64_t* indptr, size_t rows, const int32_t* indices, size_t entries, const int64_t* wanted, size_t count,
                        std::vector<int64_t>& bounds, std::vector<int64_t>& out) {
  bounds.assign(1, 0);
  for (size_t i = 0; i < count; ++i) {
    if (wanted[i] < 0 || static_cast<size_t>(wanted[i]) >= rows) return false;
    const int64_t begin = indptr[wanted[i]], end = indptr[wanted[i] + 1];
    if (begin < 0 || end < begin || static_cast<size_t>(end) > entries) return false;
    out.insert(out.end(), indices + begin, indices + end);
    bounds.push_back(static_cast<int64_t>(out.size()));
  }
  return true;
}

// Whether `indptr` ascends from 0 to `entries`, and each row of `indices` strictly, inside 0 … n − 1.
inline bool ascending_rows(const int64_t* indptr, size_t rows, const int64_t* indices, size_t entries, int64_t n) {
  if (indptr[0] != 0 || static_cast<size_t>(indptr[rows]) != entries) return false;
  for (size_t r = 0; r < rows; ++r) {
    if (indptr[r + 1] < indptr[r] || static_cast<size_t>(indptr[r + 1]) > entries) return false;
    int64_t last = -1;
    for (int64_t e = indptr[r]; e < indptr[r + 1]; last = indices[e++]) {
      if (indices[e] <= last || indices[e] >= n) return false;
    }
  }
  return true;
}

}  // namespace hashlgn
