// Sub-codes of a vector x under codewords that stay: the squared error of Σ_m c_m beside x, as small as a beam search and then
// single changes make it. Inner products alone are needed, so a metric enters through them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hashlgn {

// What a search is over.
struct Codewords {
  const float* gram;     // inner products of all codewords, (16 subcodes, 16 subcodes)
  const float* squares;  // its diagonal, one after the other
  size_t subcodes, beam, rounds;
};

// V is the instruction set that this is compiled for: the sums run over whole registers.
//
// The partial codes that a beam keeps mostly differ in their last sub-codes alone. The first ones, which all of them share, are summed
// once, over all codewords. The last ones are summed for each partial code, over the codewords that are asked for next. The order of
// the sums is that of the NumPy form.
template <class V>
class Encoder {
 public:
  // From the inner products of x and all codewords, `dots`, to the sub-code of each sub-quantizer.
  static void encode(const Codewords& codewords, const float* dots, uint8_t* words) {
    Encoder encoder(codewords, dots);
    for (size_t m = 0; m < codewords.subcodes; ++m) encoder.step(m);
    for (size_t m = encoder.agreed_; m < codewords.subcodes; ++m) encoder.sum(encoder.row(m, encoder.words_[m]));
    std::copy_n(encoder.words_.begin(), codewords.subcodes, words);
    encoder.improve(words);
  }

 private:
  struct Choice {
    float error;    // ‖Σ − x‖² − ‖x‖²
    uint32_t from;  // partial and codeword
  };

  Encoder(const Codewords& codewords, const float* dots)
      : of_(codewords), width_(16 * codewords.subcodes), away_(width_), words_(codewords.beam * codewords.subcodes),
        next_words_(words_.size()), kept_{{0, 0}} {
    for (size_t j = 0; j < width_; ++j) away_[j] = -dots[j];
    kept_.reserve(codewords.beam), next_.reserve(codewords.beam);
  }

  const float* row(size_t m, size_t word) const { return of_.gram + (16 * m + word) * width_; }

  void sum(const float* row) {
    float* __restrict away = away_.data();
    for (size_t j = 0; j < width_; ++j) away[j] += row[j];
  }

  // Extends the partial codes by sub-quantizer m.
  void step(size_t m) {
    choose(m);
    for (size_t i = 0; i < kept_.size(); ++i) {
      const size_t old = kept_[i].from / 16;
      uint8_t* words = next_words_.data() + i * of_.subcodes;
      std::copy_n(words_.begin() + static_cast<std::ptrdiff_t>(old * of_.subcodes), m, words);
      words[m] = static_cast<uint8_t>(kept_[i].from % 16);
    }
    std::swap(words_, next_words_);
    for (; agreed_ <= m && agree(agreed_); ++agreed_) sum(row(agreed_, words_[agreed_]));
  }

  bool agree(size_t m) const {
    for (size_t i = 1; i < kept_.size(); ++i) {
      if (words_[i * of_.subcodes + m] != words_[m]) return false;
    }
    return true;
  }

  // The extensions with the least errors, the least first and the first of equals, as many as the beam is wide.
  void choose(size_t m) {
    const size_t block = 16 * m;
    next_.clear();
    for (size_t b = 0; b < kept_.size(); ++b) {
      float errors[16];
      std::copy_n(away_.data() + block, 16, errors);
      const uint8_t* words = words_.data() + b * of_.subcodes;
      for (size_t l = agreed_; l < m; ++l) {
        const float* part = row(l, words[l]) + block;
        for (size_t k = 0; k < 16; ++k) errors[k] += part[k];
      }
      for (size_t k = 0; k < 16; ++k) errors[k] = kept_[b].error + (2 * errors[k] + of_.squares[block + k]);
      for (size_t k = 0; k < 16; ++k) {
        if (next_.size() == of_.beam) {
          if (!(errors[k] < next_.back().error)) continue;
          next_.pop_back();
        }
        const auto place = std::find_if(next_.begin(), next_.end(), [&](const Choice& other) { return errors[k] < other.error; });
        next_.insert(place, {errors[k], static_cast<uint32_t>(16 * b + k)});
      }
    }
    std::swap(kept_, next_);
  }

  // Sets each sub-code in turn to the best beside the others.
  void improve(uint8_t* words) {
    float* away = away_.data();  // c · (Σ − x) of all codewords c
    bool changed = true;
    for (size_t round = 0; changed && round < of_.rounds; ++round) {
      changed = false;
      for (size_t m = 0; m < of_.subcodes; ++m) {
        const size_t block = 16 * m, old = words[m];
        const float* removed = row(m, old);
        float errors[16];
        for (size_t k = 0; k < 16; ++k) errors[k] = 2 * (away[block + k] - removed[block + k]) + of_.squares[block + k];
        const size_t best = static_cast<size_t>(std::min_element(errors, errors + 16) - errors);
        if (best == old) continue;
        words[m] = static_cast<uint8_t>(best), changed = true;
        const float* added = row(m, best);
        for (size_t j = 0; j < width_; ++j) away[j] += added[j] - removed[j];
      }
    }
  }

  Codewords of_;
  size_t width_;
  std::vector<float> away_;                  // c · (Σ − x) of all codewords c, Σ over what all partial codes agree in
  std::vector<uint8_t> words_, next_words_;  // (beam, subcodes)
  size_t agreed_ = 0;                        // sub-codes that all partial codes agree in
  std::vector<Choice> kept_, next_;
};

}  // namespace hashlgn
