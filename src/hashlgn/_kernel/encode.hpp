// Sub-codes of a vector x under codewords that stay: the squared error of Σ_m c_m beside x, as small as a beam search and then
// single changes make it. Inner products alone are needed, so a metric enters through them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hashlgn {

class Encoder {
 public:
  // `gram` holds the inner products of all codewords, (16 subcodes, 16 subcodes), and `squares` its diagonal, one after the other.
  Encoder(const float* gram, const float* squares, size_t subcodes, size_t beam, size_t rounds)
      : gram_(gram), squares_(squares), subcodes_(subcodes), rounds_(rounds), partial_(beam), next_(beam) {}

  // From the inner products of x and all codewords, `dots`, to the sub-code of each sub-quantizer.
  void encode(const float* dots, uint8_t* words) {
    const size_t width = 16 * subcodes_;
    Partial& empty = partial_[0];
    empty.error = 0, empty.words.clear(), empty.away.resize(width);
    for (size_t j = 0; j < width; ++j) empty.away[j] = -dots[j];
    size_t size = 1;
    for (size_t m = 0; m < subcodes_; ++m) size = step(16 * m, size);
    Partial& best = partial_[0];  // so far, only the codewords that came next were followed
    for (size_t j = 0; j < width; ++j) best.away[j] = -dots[j];
    for (size_t m = 0; m < subcodes_; ++m) {
      const float* added = row(16 * m + best.words[m]);
      for (size_t j = 0; j < width; ++j) best.away[j] += added[j];
    }
    improve(best);
    std::copy(partial_[0].words.begin(), partial_[0].words.end(), words);
  }

 private:
  struct Partial {
    float error;               // ‖Σ − x‖² − ‖x‖²
    std::vector<uint8_t> words;
    std::vector<float> away;   // c · (Σ − x) of all codewords c
  };
  struct Choice {
    float error;
    uint32_t from;  // partial and codeword
    bool operator<(const Choice& other) const { return error < other.error || (error == other.error && from < other.from); }
  };

  const float* row(size_t codeword) const { return gram_ + codeword * 16 * subcodes_; }

  // Extends the partial codes by the sub-quantizer whose first codeword is `block`; how many are left.
  size_t step(size_t block, size_t size) {
    choices_.clear();
    for (size_t b = 0; b < size; ++b) {
      for (size_t k = 0; k < 16; ++k) {
        const float error = partial_[b].error + (2 * partial_[b].away[block + k] + squares_[block + k]);
        choices_.push_back({error, static_cast<uint32_t>(16 * b + k)});
      }
    }
    const size_t kept = std::min(partial_.size(), choices_.size());
    std::partial_sort(choices_.begin(), choices_.begin() + static_cast<std::ptrdiff_t>(kept), choices_.end());
    for (size_t i = 0; i < kept; ++i) {
      const Partial& old = partial_[choices_[i].from / 16];
      const float* added = row(block + choices_[i].from % 16);
      Partial& grown = next_[i];
      grown.error = choices_[i].error, grown.words = old.words, grown.away.resize(old.away.size());
      grown.words.push_back(static_cast<uint8_t>(choices_[i].from % 16));
      for (size_t j = block + 16; j < old.away.size(); ++j) grown.away[j] = old.away[j] + added[j];
    }
    std::swap(partial_, next_);
    return kept;
  }

  // Sets each sub-code in turn to the best beside the others.
  void improve(Partial& code) const {
    bool changed = true;
    for (size_t round = 0; changed && round < rounds_; ++round) {
      changed = false;
      for (size_t m = 0; m < subcodes_; ++m) {
        const size_t block = 16 * m, old = code.words[m];
        const float* removed = row(block + old);
        size_t best = 0;
        float least = 0;
        for (size_t k = 0; k < 16; ++k) {
          const float error = 2 * (code.away[block + k] - removed[block + k]) + squares_[block + k];
          if (k == 0 || error < least) best = k, least = error;
        }
        if (best == old) continue;
        code.words[m] = static_cast<uint8_t>(best), changed = true;
        const float* added = row(block + best);
        for (size_t j = 0; j < code.away.size(); ++j) code.away[j] += added[j] - removed[j];
      }
    }
  }

  const float *gram_, *squares_;
  size_t subcodes_, rounds_;
  std::vector<Partial> partial_, next_;
  std::vector<Choice> choices_;
};

}  // namespace hashlgn
