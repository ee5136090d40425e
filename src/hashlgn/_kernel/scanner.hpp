// The way of one thread through the catalogue with a few queries.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

#include "lut.hpp"
#include "search.hpp"
#include "seen.hpp"
#include "topk.hpp"

namespace hashlgn {

constexpr size_t kWarmUp = 512;      // blocks of a warm-up pass, which keeps all values: the best of them set a threshold
constexpr size_t kChunk = 64;        // blocks scanned before their candidates are scored: their codes stay in cache
constexpr size_t kChunkSlots = kChunk * kBlock + kSpill;  // candidates of one query in a chunk, at most
constexpr size_t kBoundGroup = 16;   // blocks that share one threshold, by the bounds of their scales
constexpr size_t kTogether = 64;     // queries of one thread that share what is read of the catalogue
constexpr size_t kRescored = 64;     // items scored exactly at a time
constexpr size_t kSampled = 256;     // rows of 64 values by which a warm-up pass guesses how many reach a value
constexpr double kSpare = 1.5;       // values a warm-up pass takes per missing hit: sums are overstated by different amounts

// Whether the threads of a search are to stop.
class Control {
 public:
  explicit Control(bool (*interrupted)()) : interrupted_(interrupted) {}

  static constexpr std::chrono::milliseconds kPatience{50};  // between two questions to the caller
  void stop() { stop_ = true; }
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  // To be called often. Only the calling thread may ask the interpreter, and seldom: it has to wait for its lock.
  void ask() {
    if (!interrupted_ || stopped() || std::this_thread::get_id() != caller_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < kPatience) return;
    asked_ = now;
    if (interrupted_()) stop();
  }

 private:
  bool (*interrupted_)();
  std::thread::id caller_ = std::this_thread::get_id();
  std::atomic<bool> stop_{false};
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

class Clock {
 public:
  explicit Clock(bool on) : on_(on) { lap(); }
  double lap() {
    if (!on_) return 0;
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  bool on_;
  std::chrono::steady_clock::time_point last_{};
};

inline double scale_at(const Segment& segment, size_t slot) {
  if (!segment.scale) return 1;
  return segment.half ? half_to_double(static_cast<const uint16_t*>(segment.scale)[slot]) : static_cast<const float*>(segment.scale)[slot];
}

struct Query {
  Lut lut;
  TopK top;
  Seen seen;

  // False where the table is not finite.
  bool set(const Request& request, size_t row) {
    const float* entries = request.tables + row * 16 * static_cast<size_t>(request.subcodes);
    if (!lut.read(*request.lanes, entries, request.subcodes)) return false;
    if (request.indptr) seen.set(request.seen + request.indptr[row], request.seen + request.indptr[row + 1]);
    top.start(request.k, request.threshold);
    return true;
  }

  // The least value of a hit in some blocks; 256 where there can be none. Scales fall from block to block.
  int threshold(const Segment& segment, size_t first, size_t last) const {
    if (!segment.largest) return lut.threshold(top.least_sum(1, 1));
    return lut.threshold(top.least_sum(segment.smallest[last], segment.largest[first]));
  }

  // Whether no hit is left from a block on.
  bool finished(const Segment& segment, size_t block) const { return top.positive() && threshold(segment, block, block) > 255; }
};

class Scanner {
 public:
  Scanner(const std::vector<Segment>& segments, const Request& request, Control& control, bool timed)
      : segments_(segments), request_(request), control_(control), lanes_(*request.lanes), clock_(timed) {
    size_t most = kChunk;  // blocks of a chunk
    ascending_ = request.probes == nullptr;
    for (const Segment& segment : segments) {
      if (request.k) most = std::max(most, std::min(segment.blocks, kWarmUp));
      ascending_ &= segment.order == nullptr;
    }
    const size_t tile = std::min<size_t>(static_cast<size_t>(lanes_.tile), request.queries);
    if (request.k) values_.reset(new uint8_t[tile * kWarmUp * kBlock]);
    slots_.reset(new uint16_t[std::max(tile * kChunkSlots, most * kBlock + kSpill)]);
    kept_.reset(new uint32_t[most * kBlock]);
    size_t allowed = request.items;
    if (request.banned) allowed -= static_cast<size_t>(std::count(request.banned, request.banned + request.items, 1));
    share_ = static_cast<double>(std::max<size_t>(allowed, 1)) / static_cast<double>(std::max<size_t>(request.items, 1));
  }

  Profile profile;

  // Answers the queries begin … end, at most `kTogether`.
  void run(size_t begin, size_t end, std::vector<std::vector<uint64_t>>& keys) {
    clock_.lap();
    std::vector<Query*> all;
    for (size_t i = 0; i < end - begin; ++i) {
      if (!queries_[i].set(request_, begin + i)) throw std::invalid_argument("tables must be finite");
      all.push_back(&queries_[i]);
    }
    profile.quantize += clock_.lap();
    for (const Segment& segment : segments_) {
      if (segment.chosen) {
        for (Query* query : all) gather(segment, *query);
      } else if (request_.probes) {
        for (size_t i = 0; i < all.size(); ++i) probe(segment, begin + i, all[i]);
      } else {
        for (size_t list = 0; list < segment.lists; ++list) scan_list(segment, list, all);
      }
    }
    profile.rescore += clock_.lap();
    for (size_t i = 0; i < all.size(); ++i) {
      all[i]->top.sort();
      keys[begin + i].assign(all[i]->top.hits.begin(), all[i]->top.hits.end());
    }
    profile.order += clock_.lap();
  }

 private:
  struct Chunk {
    const Segment* segment;
    size_t block;   // its first
    size_t blocks;
    size_t items;   // the last block may be short
  };

  // Quantized tables of a tile's queries.
  using Tables = std::array<const uint8_t*, kTile>;

  // Scores the chosen items one by one.
  void gather(const Segment& segment, Query& query) {
    for (size_t start = 0; start < segment.n_chosen && !stopped(); start += kChunk * kBlock) {
      const size_t end = std::min(segment.n_chosen, start + kChunk * kBlock);
      std::copy(segment.chosen + start, segment.chosen + end, kept_.get());
      rescore(segment, query, allowed(segment, end - start));
    }
  }

  // Scans the lists that a query names.
  void probe(const Segment& segment, size_t row, Query* query) {
    const int32_t* probes = request_.probes + row * request_.n_probes;
    for (size_t p = 0; p < request_.n_probes; ++p) {
      if (probes[p] >= 0 && static_cast<size_t>(probes[p]) < segment.lists) scan_list(segment, static_cast<size_t>(probes[p]), {query});
    }
  }

  void scan_list(const Segment& segment, size_t list, std::vector<Query*> alive) {
    for (size_t done = 0; done < segment.counts[list] && !stopped();) {
      const size_t block = segment.starts[list] + done / kBlock;
      std::erase_if(alive, [&](const Query* query) { return query->finished(segment, block); });
      if (alive.empty()) return;
      const bool warming = std::any_of(alive.begin(), alive.end(), [](const Query* query) { return !query->top.bounded(); });
      const size_t items = std::min(segment.counts[list] - done, (warming ? kWarmUp : kChunk) * kBlock);
      const Chunk chunk{&segment, block, (items + kBlock - 1) / kBlock, items};
      for (size_t first = 0, size; first < alive.size(); first += size) {
        size = static_cast<size_t>(lanes_.tile);
        while (size > alive.size() - first) size /= 2;
        if (warming) warm_up(chunk, &alive[first], size);
        else scan_chunk(chunk, &alive[first], size);
      }
      done += items;
    }
  }

  bool stopped() {
    control_.ask();
    return control_.stopped();
  }

  Scan scan_of(const Chunk& chunk, size_t first, size_t blocks, size_t queries, const Tables& tables) const {
    const uint8_t* rows = chunk.segment->rows + (chunk.block + first) * static_cast<size_t>(request_.subcodes) * kRow;
    return {rows, blocks, request_.subcodes, static_cast<int>(queries), tables.data()};
  }

  static Tables tables_of(Query* const* tile, size_t size) {
    Tables tables{};
    for (size_t i = 0; i < size; ++i) tables[i] = tile[i]->lut.bytes();
    return tables;
  }

  // Visits the bound groups of a chunk: visit(first block, blocks).
  template <class Visit>
  static void each_group(const Chunk& chunk, const Visit& visit) {
    const size_t step = chunk.segment->largest ? std::clamp<size_t>(chunk.blocks / 4, 1, kBoundGroup) : chunk.blocks;
    for (size_t first = 0; first < chunk.blocks; first += step) visit(first, std::min(step, chunk.blocks - first));
  }

  static int threshold(const Chunk& chunk, size_t first, size_t blocks, const Query& query) {
    return query.threshold(*chunk.segment, chunk.block + first, chunk.block + first + blocks - 1);
  }

  // Scans a chunk against the threshold, and scores the candidates.
  void scan_chunk(const Chunk& chunk, Query* const* tile, size_t size) {
    const Tables tables = tables_of(tile, size);
    std::array<uint16_t*, kTile> slots{};
    std::array<size_t, kTile> counts{};
    for (size_t i = 0; i < size; ++i) slots[i] = &slots_[i * kChunkSlots];
    each_group(chunk, [&](size_t first, size_t blocks) {
      std::array<uint8_t, kTile> thresholds{};
      bool reached = false;
      for (size_t i = 0; i < size; ++i) {
        const int least = threshold(chunk, first, blocks, *tile[i]);
        reached |= least <= 255;
        thresholds[i] = static_cast<uint8_t>(std::min(least, 255));
      }
      if (!reached) return;
      lanes_.candidates(scan_of(chunk, first, blocks, size, tables), thresholds.data(), first * kBlock, slots.data(), counts.data());
      profile.scanned += std::min(blocks * kBlock, chunk.items - first * kBlock) * size;
    });
    profile.scan += clock_.lap();
    for (size_t i = 0; i < size; ++i) {
      filter(chunk, *tile[i], slots[i], counts[i], 0);
      if (ascending_) tile[i]->top.lose_ties();
    }
    profile.rescore += clock_.lap();
  }

  // Scans a chunk where some queries have no threshold yet, and keeps all values: the greatest are scored first, and set it.
  void warm_up(const Chunk& chunk, Query* const* tile, size_t size) {
    const Tables tables = tables_of(tile, size);
    std::array<uint8_t*, kTile> values{};
    for (size_t i = 0; i < size; ++i) values[i] = &values_[i * kWarmUp * kBlock];
    lanes_.values(scan_of(chunk, 0, chunk.blocks, size, tables), values.data());
    profile.scanned += chunk.items * size;
    profile.scan += clock_.lap();
    for (size_t i = 0; i < size; ++i) {
      const int below = tile[i]->top.bounded() ? 256 : score_greatest(chunk, *tile[i], values[i]);
      each_group(chunk, [&](size_t first, size_t blocks) {
        const int least = threshold(chunk, first, blocks, *tile[i]);
        if (least >= below) return;
        const size_t found = lanes_.select(values[i] + first * kBlock, blocks * kBlock, least, below, slots_.get());
        filter(chunk, *tile[i], slots_.get(), found, first * kBlock);
      });
      if (ascending_) tile[i]->top.lose_ties();
    }
    profile.rescore += clock_.lap();
  }

  // Scores the greatest values of a chunk until there are k hits; all values from the answer on have been scored.
  int score_greatest(const Chunk& chunk, Query& query, const uint8_t* values) {
    const size_t count = chunk.blocks * kBlock, stride = std::max<size_t>(1, count / 64 / kSampled);
    // So many of the greatest values are no hits: first the seen items to expect among them, then those that were scored.
    double taken = static_cast<double>(std::min(query.seen.size(), query.top.k()));
    int below = 256;
    while (!query.top.full() && below > 0) {
      const double target = taken + kSpare * static_cast<double>(query.top.k() - query.top.hits.size()) / share_;
      int least = 0;  // the greatest value that about `target` items reach
      for (int bit = 128; bit; bit /= 2) {
        if (least + bit >= below) continue;
        const size_t reach = lanes_.count(values, count, stride, least + bit) * stride;
        if (static_cast<double>(reach) >= target) least += bit;
      }
      const size_t found = lanes_.select(values, count, least, below, slots_.get());
      filter(chunk, query, slots_.get(), found, 0);
      taken += static_cast<double>(found), below = least;
    }
    query.top.select();
    return below;
  }

  // Scores the items at some slots of a chunk, `shift` slots further on.
  void filter(const Chunk& chunk, Query& query, const uint16_t* slots, size_t count, size_t shift) {
    const uint32_t start = static_cast<uint32_t>(chunk.block * kBlock), end = start + static_cast<uint32_t>(chunk.items);
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      kept_[kept] = start + static_cast<uint32_t>(shift) + slots[i];
      kept += kept_[kept] < end;  // the last block may not be full
    }
    rescore(*chunk.segment, query, allowed(*chunk.segment, kept));
  }

  // Leaves out holes and banned items of the first `count` slots in `kept_`; how many are left.
  size_t allowed(const Segment& segment, size_t count) {
    if (!request_.banned && !segment.holes) return count;
    size_t left = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t slot = kept_[i];
      kept_[left] = slot;
      if (segment.holes && segment.holes[slot / 8] >> slot % 8 & 1) continue;
      left += !request_.banned || !request_.banned[item_at(segment, slot)];
    }
    return left;
  }

  uint32_t item_at(const Segment& segment, uint32_t slot) const {
    const uint32_t item = segment.order ? segment.order[slot] : segment.first + slot;
    if (item >= request_.items) throw std::invalid_argument("order must hold item numbers of the catalogue: the index is damaged");
    return item;
  }

  // Scores the items at the first `count` slots in `kept_` exactly, and pushes those that were not seen.
  void rescore(const Segment& segment, Query& query, size_t count) {
    profile.rescored += count;
    std::array<double, kRescored> sums;
    std::array<float, kRescored> scores;
    std::array<uint32_t, kRescored> items;
    const uint32_t* slots = kept_.get();
    for (size_t size; count; slots += size, count -= size) {
      size = std::min(count, kRescored);
      lanes_.sums(segment.rows, request_.subcodes, query.lut.table(), slots, size, sums.data());
      const float least = query.top.least_score();
      size_t kept = 0;
      for (size_t i = 0; i < size; ++i) {  // without branches: about half of them are kept
        scores[kept] = static_cast<float>(sums[i] * scale_at(segment, slots[i]));
        items[kept] = slots[i];
        kept += scores[kept] >= least;
      }
      for (size_t i = 0; i < kept; ++i) items[i] = item_at(segment, items[i]);
      kept = query.seen.without(scores.data(), items.data(), kept);
      profile.kept += query.top.push(scores.data(), items.data(), kept);
    }
  }

  const std::vector<Segment>& segments_;
  const Request& request_;
  Control& control_;
  const Lanes& lanes_;
  Clock clock_;
  std::array<Query, kTogether> queries_;  // used again and again: their memory stays
  std::unique_ptr<uint8_t[]> values_;     // (tile, items of a warm-up pass)
  std::unique_ptr<uint16_t[]> slots_;     // (tile, candidates of a chunk), or those of one query in a warm-up pass
  std::unique_ptr<uint32_t[]> kept_;      // slots of one query that are to be scored
  double share_ = 1;                      // of the catalogue that is not banned
  bool ascending_ = false;                // whether items are met by ascending number
};

}  // namespace hashlgn
