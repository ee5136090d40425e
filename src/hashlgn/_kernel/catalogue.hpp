// A catalogue as the kernel holds it, and what a search of it gives back.
#pragma once

#include <stdexcept>

#include "binding.hpp"
#include "search.hpp"
#include "topk.hpp"

namespace hashlgn {

inline const Lanes* lanes_named(const std::string& name) {
  for (const Lanes* lanes : available()) {
    if (name == "auto" || name == lanes->name) return lanes;
  }
  throw nb::value_error(("isa must be one that this machine has (got '" + name + "')").c_str());
}

// A segment of a catalogue and the arrays it points into.
class HeldSegment {
 public:
  HeldSegment(In<uint8_t, 3> rows, In<uint32_t, 1> starts, In<uint32_t, 1> counts, uint32_t first,
              std::optional<In<uint32_t, 1>> order, std::optional<Scale> scale, std::optional<In<float, 1>> largest,
              std::optional<In<float, 1>> smallest, std::optional<In<uint8_t, 1>> holes)
      : rows_(rows), starts_(starts), counts_(counts), order_(order), scale_(scale), largest_(largest), smallest_(smallest), holes_(holes) {
    const size_t blocks = rows.shape(0), slots = blocks * kBlock;
    require(rows.shape(2) == kRow, "rows must have shape (blocks, sub-codes, 64)");
    require(rows.shape(1) >= 2 && rows.shape(1) % 2 == 0 && rows.shape(1) <= kMostSubcodes,
            "rows must have an even number of sub-codes, at most 1024");
    require(starts.shape(0) == counts.shape(0), "starts and counts must be of one length");
    for (size_t list = 0; list < starts.shape(0); ++list) {
      const size_t need = (size_t{counts.data()[list]} + kBlock - 1) / kBlock;
      require(starts.data()[list] <= blocks && need <= blocks - starts.data()[list], "lists must lie inside the blocks");
    }
    require(!order || order->shape(0) == slots, "order must have one number per slot");
    require(!holes || holes->shape(0) == slots / 8, "holes must have one bit per slot");
    require(!scale == !largest && !scale == !smallest, "scale, largest and smallest must come together");
    segment = {};
    segment.rows = rows.data(), segment.blocks = blocks, segment.first = first;
    segment.starts = starts.data(), segment.counts = counts.data(), segment.lists = starts.shape(0);
    if (order) segment.order = order->data();
    if (holes) segment.holes = holes->data();
    if (!scale) return;
    segment.half = scale->dtype() == nb::dlpack::dtype{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(segment.half || scale->dtype() == nb::dtype<float>(), "scale must be float16 or float32");
    require(scale->shape(0) == slots, "scale must have one number per slot");
    require(largest->shape(0) == blocks && smallest->shape(0) == blocks, "largest and smallest must have one number per block");
    segment.scale = scale->data(), segment.largest = largest->data(), segment.smallest = smallest->data();
  }

  size_t subcodes() const { return rows_.shape(1); }
  Segment segment;

 private:
  In<uint8_t, 3> rows_;
  In<uint32_t, 1> starts_, counts_;
  std::optional<In<uint32_t, 1>> order_;
  std::optional<Scale> scale_;
  std::optional<In<float, 1>> largest_, smallest_;
  std::optional<In<uint8_t, 1>> holes_;
};

// The segments of a search; with `chosen`, the only slots of each that matter.
inline std::vector<Segment> segments_of(const std::vector<const HeldSegment*>& held, const std::optional<std::vector<In<uint32_t, 1>>>& chosen,
                                 size_t subcodes) {
  require(!chosen || chosen->size() == held.size(), "chosen must have one array per segment");
  std::vector<Segment> segments;
  for (size_t i = 0; i < held.size(); ++i) {
    require(held[i], "segments must not be None");
    require(held[i]->subcodes() == subcodes, "tables must have the sub-codes of the codes");
    Segment segment = held[i]->segment;
    if (chosen) {
      const In<uint32_t, 1>& slots = (*chosen)[i];
      for (size_t j = 0; j < slots.shape(0); ++j) {
        require(slots.data()[j] < segment.blocks * kBlock, "chosen must hold slots of the segment");
        require(j == 0 || slots.data()[j] > slots.data()[j - 1], "chosen must ascend");
      }
      segment.chosen = slots.data(), segment.n_chosen = slots.shape(0);
      if (!segment.chosen) segment.chosen = reinterpret_cast<const uint32_t*>(segment.rows);  // of an empty array
    }
    segments.push_back(segment);
  }
  return segments;
}

// An array that is made before its length is certain: after a large search, NumPy has left the caches.
template <class T>
class EarlyArray {
 public:
  explicit EarlyArray(size_t likely) { made(likely <= kMost ? likely : 0); }

  // Where its numbers are, of the right length.
  T* made(size_t size) {
    if (!data_ || size != size_) held = array<T>(size, data_), size_ = size;
    return data_;
  }

  nb::object held;

 private:
  static constexpr size_t kMost = 1 << 16;
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Row bounds, items and scores.
class HitArrays {
 public:
  // `most` is how many hits there are at most.
  HitArrays(size_t queries, size_t most) : items(most), scores(most) { bounds = array<int64_t>(queries + 1, ends_); }

  // Takes the hits of as many queries; how many there are.
  size_t fill(const Answer& answer) {
    ends_[0] = 0;
    for (size_t i = 0; i < answer.keys.size(); ++i) ends_[i + 1] = ends_[i] + static_cast<int64_t>(answer.keys[i].size());
    const size_t count = static_cast<size_t>(ends_[answer.keys.size()]);
    int64_t* numbers = items.made(count);
    float* values = scores.made(count);
    for (const auto& keys : answer.keys) {
      for (const uint64_t key : keys) *numbers++ = item_of(key), *values++ = score_of(key);
    }
    return count;
  }

  nb::object bounds;
  EarlyArray<int64_t> items;
  EarlyArray<float> scores;

 private:
  int64_t* ends_;
};

// Whether Python wants to raise, as after Ctrl-C.
inline bool interrupted() {
  const nb::gil_scoped_acquire acquired;
  return PyErr_CheckSignals() != 0;
}

}  // namespace hashlgn
