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
template <class V>
class Encoder {
 public:
  // From the inner products of x and all codewords, `dots`, to the sub-code of each sub-quantizer.
  static void encode(const Codewords& codewords, const float* dots, uint8_t* words) {
    Encoder encoder(codewords, dots);
    for (size_t m = 0; m < codewords.subcodes; ++m) encoder.step(m);
    std::copy_n(encoder.words_.begin(), codewords.subcodes, words);
    encoder.improve(words, dots);
  }

 private:
  struct Choice {
    float error;    // ‖Σ − x‖² − ‖x‖²
    uint32_t from;  // partial and codeword
  };

  Encoder(const Codewords& codewords, const float* dots)
      : of_(codewords), width_(16 * codewords.subcodes), away_(codewords.beam * width_), next_away_(away_.size()),
        words_(codewords.beam * codewords.subcodes), next_words_(words_.size()), kept_{{0, 0}} {
    for (size_t j = 0; j < width_; ++j) away_[j] = -dots[j];
    kept_.reserve(codewords.beam), next_.reserve(codewords.beam);
  }

  const float* row(size_t codeword) const { return of_.gram + codeword * width_; }

  // out = a + b; out may be a.
  static void add(const float* a, const float* b, size_t count, float* out) {
    for (size_t j = 0; j < count; ++j) out[j] = a[j] + b[j];
  }

  // Extends the partial codes by sub-quantizer m. Only what codewords that come next are away is followed.
  void step(size_t m) {
    const size_t block = 16 * m, behind = block + 16;
    choose(block);
    for (size_t i = 0; i < kept_.size(); ++i) {
      const size_t old = kept_[i].from / 16, word = kept_[i].from % 16;
      add(away_.data() + old * width_ + behind, row(block + word) + behind, width_ - behind, next_away_.data() + i * width_ + behind);
      std::copy_n(words_.begin() + static_cast<std::ptrdiff_t>(old * of_.subcodes), m,
                  next_words_.begin() + static_cast<std::ptrdiff_t>(i * of_.subcodes));
      next_words_[i * of_.subcodes + m] = static_cast<uint8_t>(word);
    }
    std::swap(away_, next_away_), std::swap(words_, next_words_);
  }

  // The extensions with the least errors, the least first and the first of equals, as many as the beam is wide.
  void choose(size_t block) {
    next_.clear();
    for (size_t b = 0; b < kept_.size(); ++b) {
      const float* away = away_.data() + b * width_ + block;
      float errors[16];
      for (size_t k = 0; k < 16; ++k) errors[k] = kept_[b].error + (2 * away[k] + of_.squares[block + k]);
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
  void improve(uint8_t* words, const float* dots) {
    float* away = away_.data();  // c · (Σ − x) of all codewords c
    for (size_t j = 0; j < width_; ++j) away[j] = -dots[j];
    for (size_t m = 0; m < of_.subcodes; ++m) add(away, row(16 * m + words[m]), width_, away);
    bool changed = true;
    for (size_t round = 0; changed && round < of_.rounds; ++round) {
      changed = false;
      for (size_t m = 0; m < of_.subcodes; ++m) {
        const size_t block = 16 * m, old = words[m];
        const float* removed = row(block + old);
        float errors[16];
        for (size_t k = 0; k < 16; ++k) errors[k] = 2 * (away[block + k] - removed[block + k]) + of_.squares[block + k];
        const size_t best = static_cast<size_t>(std::min_element(errors, errors + 16) - errors);
        if (best == old) continue;
        words[m] = static_cast<uint8_t>(best), changed = true;
        const float* added = row(block + best);
        for (size_t j = 0; j < width_; ++j) away[j] += added[j] - removed[j];
      }
    }
  }

  Codewords of_;
  size_t width_;
  std::vector<float> away_, next_away_;     // of each partial code, (beam, width)
  std::vector<uint8_t> words_, next_words_;  // (beam, subcodes)
  std::vector<Choice> kept_, next_;
};

}  // namespace hashlgn
