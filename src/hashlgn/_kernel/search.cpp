#include "search.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "query.hpp"

namespace hashlgn {
namespace {

constexpr size_t kWarmUp = 512;         // blocks of a warm-up pass, which keeps all values: the best of them set a threshold
constexpr size_t kChunk = 64;           // blocks scanned before their candidates are scored: their codes stay in cache
constexpr size_t kChunkSlots = kChunk * kBlock + kSpill;  // candidates of one query in a chunk, at most
constexpr size_t kBoundGroup = 16;      // blocks that share one threshold, by the bounds of their scales
constexpr size_t kTogether = 64;        // queries of one thread that share what is read of the catalogue
constexpr size_t kRescored = 64;        // items scored exactly at a time
constexpr size_t kSteps = 8;            // chunks between two looks at the clock

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

// What the threads of a search share: whether to stop, and why.
class Control {
 public:
  explicit Control(const Request& request) : interrupted_(request.interrupted), caller_(std::this_thread::get_id()) {}

  std::mutex lock;
  std::exception_ptr failure;

  bool stopped() const { return stop_.load(std::memory_order_relaxed); }
  void enter() { ++running_; }
  void leave() {
    const std::lock_guard guard(lock);
    --running_;
    done_.notify_all();
  }
  void fail(std::exception_ptr why) {
    const std::lock_guard guard(lock);
    if (!failure) failure = why;
    stop_ = true;
  }

  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (...) {
      fail(std::current_exception());
    }
    leave();
  }

  // To be called often. Only the calling thread may ask the interpreter, and seldom: it has to wait for its lock.
  void ask() {
    if (!interrupted_ || stopped() || std::this_thread::get_id() != caller_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - asked_ < kPatience) return;
    asked_ = now;
    if (interrupted_()) stop_ = true;
  }

  // Until all have left.
  void wait() {
    std::unique_lock guard(lock);
    while (!done_.wait_for(guard, kPatience, [this] { return running_ == 0; })) {
      guard.unlock();
      ask();
      guard.lock();
    }
  }

 private:
  static constexpr std::chrono::milliseconds kPatience{50};
  bool (*interrupted_)();
  std::thread::id caller_;
  std::atomic<bool> stop_{false};
  std::atomic<size_t> running_{0};
  std::condition_variable done_;
  std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
};

struct Chunk {
  const Segment* segment;
  size_t block;   // its first
  size_t blocks;
  size_t items;   // the last block may be short
};

// One thread's way through the catalogue with a few queries.
class Scanner {
 public:
  Scanner(const std::vector<Segment>& segments, const Request& request, Control& control, bool timed)
      : segments_(segments), request_(request), control_(control), lanes_(*request.lanes), clock_(timed) {
    size_t most = 1;
    rising_ = request.probes == nullptr;
    for (const Segment& segment : segments) {
      most = std::max(most, std::min(segment.blocks, kWarmUp));
      rising_ &= segment.order == nullptr;
    }
    tile_ = std::min<size_t>(static_cast<size_t>(lanes_.tile), request.queries);
    if (request.k) values_.reset(new uint8_t[tile_ * kWarmUp * kBlock]);
    slots_.reset(new uint16_t[std::max(tile_ * kChunkSlots, most * kBlock + kSpill)]);
    kept_.reset(new uint32_t[std::max(kChunk, most) * kBlock]);
    size_t allowed = request.items;
    if (request.banned) allowed -= static_cast<size_t>(std::count(request.banned, request.banned + request.items, 1));
    share_ = static_cast<double>(std::max<size_t>(allowed, 1)) / static_cast<double>(std::max<size_t>(request.items, 1));
  }

  Profile profile;

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
        for (size_t i = 0; i < all.size(); ++i) {
          for (size_t p = 0; p < request_.n_probes; ++p) {
            const int32_t list = request_.probes[(begin + i) * request_.n_probes + p];
            if (list >= 0 && static_cast<size_t>(list) < segment.lists) scan_list(segment, static_cast<size_t>(list), {all[i]});
          }
        }
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
  void scan_list(const Segment& segment, size_t list, std::vector<Query*> alive) {
    for (size_t done = 0; done < segment.counts[list] && !stopped();) {
      const size_t block = segment.starts[list] + done / kBlock;
      if (segment.largest) {
        // Scales only fall: where the first block of a chunk cannot reach the threshold, nothing after it can.
        std::erase_if(alive, [&](const Query* query) {
          return query->top.positive() && query->threshold(smallest(segment, block), largest(segment, block)) > 255;
        });
      }
      if (alive.empty()) return;
      const bool warming = std::any_of(alive.begin(), alive.end(), [](const Query* query) { return !query->top.bounded(); });
      Chunk chunk{&segment, block, 0, std::min(segment.counts[list] - done, (warming ? kWarmUp : kChunk) * kBlock)};
      chunk.blocks = (chunk.items + kBlock - 1) / kBlock;
      for (size_t first = 0, size; first < alive.size(); first += size) {
        size = static_cast<size_t>(lanes_.tile);
        while (size > alive.size() - first) size /= 2;
        if (warming) warm_up(chunk, &alive[first], size);
        else scan_chunk(chunk, &alive[first], size);
      }
      done += chunk.items;
    }
  }

  bool stopped() {
    if (++steps_ % kSteps == 0) control_.ask();
    return control_.stopped();
  }

  static double largest(const Segment& segment, size_t block) { return segment.largest ? segment.largest[block] : 1; }
  static double smallest(const Segment& segment, size_t block) { return segment.smallest ? segment.smallest[block] : 1; }

  // The least value of a hit in some blocks of a chunk, from block `first` on.
  static int group_threshold(const Chunk& chunk, size_t first, size_t blocks, const Query& query) {
    const size_t last = std::min(first + blocks, chunk.blocks) - 1;
    return query.threshold(smallest(*chunk.segment, chunk.block + last), largest(*chunk.segment, chunk.block + first));
  }

  const uint8_t* rows_at(const Chunk& chunk, size_t block) const {
    return chunk.segment->rows + (chunk.block + block) * static_cast<size_t>(request_.subcodes) * kRow;
  }

  // Scan a chunk against the threshold, one bound group after the other, and score the candidates.
  void scan_chunk(const Chunk& chunk, Query* const* tile, size_t size) {
    std::array<const uint8_t*, kTile> tables{};
    std::array<uint16_t*, kTile> slots{};
    std::array<size_t, kTile> counts{};
    std::array<uint8_t, kTile> thresholds{};
    for (size_t i = 0; i < size; ++i) {
      tables[i] = tile[i]->lut.bytes();
      slots[i] = &slots_[i * kChunkSlots];
    }
    const size_t step = chunk.segment->largest ? kBoundGroup : chunk.blocks;
    size_t seen = 0;  // items that were compared with a threshold
    for (size_t group = 0; group < chunk.blocks; group += step) {
      bool reached = false, falling = true;
      for (size_t i = 0; i < size; ++i) {
        const int threshold = group_threshold(chunk, group, step, *tile[i]);
        reached |= threshold <= 255, falling &= tile[i]->top.positive();
        thresholds[i] = static_cast<uint8_t>(std::min(threshold, 255));
      }
      if (!reached && falling) break;
      const size_t blocks = std::min(step, chunk.blocks - group);
      lanes_.candidates(rows_at(chunk, group), blocks, request_.subcodes, static_cast<int>(size), tables.data(), thresholds.data(),
                     group * kBlock, slots.data(), counts.data());
      seen += std::min(blocks * kBlock, chunk.items - group * kBlock);
    }
    profile.scanned += seen * size;
    profile.scan += clock_.lap();
    for (size_t i = 0; i < size; ++i) {
      filter(chunk, *tile[i], slots[i], counts[i], 0, true);
      if (rising_) tile[i]->top.lose_ties();
    }
    profile.rescore += clock_.lap();
  }

  // Warm-up pass over a chunk where some queries have no threshold yet: score the greatest values until there are k hits, which set it.
  void warm_up(const Chunk& chunk, Query* const* tile, size_t size) {
    std::array<const uint8_t*, kTile> tables{};
    std::array<uint8_t*, kTile> values{};
    for (size_t i = 0; i < size; ++i) {
      tables[i] = tile[i]->lut.bytes();
      values[i] = &values_[i * kWarmUp * kBlock];
    }
    lanes_.values(rows_at(chunk, 0), chunk.blocks, request_.subcodes, static_cast<int>(size), tables.data(), values.data());
    profile.scanned += chunk.items * size;
    profile.scan += clock_.lap();
    for (size_t i = 0; i < size; ++i) {
      const bool masked = mask_seen(chunk, *tile[i], values[i]);
      const int below = tile[i]->top.bounded() ? 256 : greatest(chunk, *tile[i], values[i], masked);
      const size_t step = chunk.segment->largest ? std::clamp<size_t>(chunk.blocks / 8, 1, kBoundGroup) : chunk.blocks;
      for (size_t group = 0; group < chunk.blocks && below > 0; group += step) {
        const int least = group_threshold(chunk, group, step, *tile[i]);
        if (least >= below) continue;
        const size_t blocks = std::min(step, chunk.blocks - group);
        const size_t found = lanes_.select(values[i] + group * kBlock, blocks * kBlock, least, below, slots_.get());
        filter(chunk, *tile[i], slots_.get(), found, group * kBlock, !masked || least == 0);
      }
      if (rising_) tile[i]->top.lose_ties();
    }
    profile.rescore += clock_.lap();
  }

  // Score the greatest values of a chunk until there are k hits; all values from the answer on have been scored.
  int greatest(const Chunk& chunk, Query& query, const uint8_t* values, bool masked) {
    const size_t count = chunk.blocks * kBlock;
    double taken = 0;  // so many of the greatest are no hits: first the seen ones to expect, then those that were scored
    if (!masked) {
      taken = static_cast<double>(query.seen.size()) * static_cast<double>(chunk.items) / static_cast<double>(request_.items);
    }
    int below = 256;
    while (!query.top.full() && below > 0) {
      // Half as many again as are missing: bytes overstate sums by different amounts, and too few would mean another round.
      const double target = taken + 1.5 * static_cast<double>(query.top.k() - query.top.hits.size()) / share_;
      const size_t sampled = std::max<size_t>(1, std::min(static_cast<size_t>(target / 32), count / 64 / 16));
      const size_t stride = std::max(sampled, count / 64 / 256);
      int least = 0;
      for (int step = 128; step; step /= 2) {
        if (least + step >= below) continue;
        const size_t over = lanes_.count(values, count, stride, least + step) * stride;
        if (static_cast<double>(over) >= target) least += step;
      }
      const size_t found = lanes_.select(values, count, least, below, slots_.get());
      filter(chunk, query, slots_.get(), found, 0, !masked || least == 0);
      taken += static_cast<double>(found), below = least;
    }
    query.top.select();
    return below;
  }

  // Set the values of seen items to 0, so that they neither count among the greatest nor need to be looked up.
  // False where their slots are not known.
  bool mask_seen(const Chunk& chunk, const Query& query, uint8_t* values) const {
    const Segment& segment = *chunk.segment;
    if (segment.order && !segment.slots) return false;
    const size_t start = chunk.block * kBlock;
    for (const int64_t item : query.seen) {
      const size_t number = static_cast<size_t>(item) - segment.first;  // of an item before the segment: beyond its end
      if (number >= segment.items) continue;
      const size_t slot = segment.slots ? segment.slots[number] : number;
      if (slot - start < chunk.items) values[slot - start] = 0;
    }
    return true;
  }

  // Score the items at some slots of a chunk, `shift` slots further on, that are not banned.
  void filter(const Chunk& chunk, Query& query, const uint16_t* slots, size_t count, size_t shift, bool check_seen) {
    const size_t start = chunk.block * kBlock;
    const uint32_t first = static_cast<uint32_t>(start + shift), end = static_cast<uint32_t>(start + chunk.items);
    for (size_t i = 0; i < count; ++i) kept_[i] = first + slots[i];
    size_t kept = count;
    if (chunk.items % kBlock || request_.banned) {
      kept = 0;
      for (size_t i = 0; i < count; ++i) {
        kept_[kept] = kept_[i];
        kept += kept_[kept] < end && !banned(*chunk.segment, kept_[kept]);  // the last block may not be full
      }
    }
    score(*chunk.segment, query, kept_.get(), kept, check_seen);
  }

  void gather(const Segment& segment, Query& query) {
    for (size_t start = 0; start < segment.n_chosen && !stopped(); start += kChunk * kBlock) {
      size_t kept = 0;
      for (size_t i = start; i < std::min(segment.n_chosen, start + kChunk * kBlock); ++i) {
        kept_[kept] = segment.chosen[i];
        kept += !banned(segment, segment.chosen[i]);
      }
      score(segment, query, kept_.get(), kept, true);
    }
  }

  bool banned(const Segment& segment, size_t slot) {
    if (!request_.banned) return false;
    const size_t item = item_at(segment, slot);
    if (item >= request_.items) damaged();
    return request_.banned[item] != 0;
  }

  [[noreturn]] static void damaged() {
    throw std::invalid_argument("order must hold item numbers of the catalogue: the index is damaged");
  }

  static uint32_t item_at(const Segment& segment, size_t slot) {
    return segment.order ? segment.order[slot] : segment.first + static_cast<uint32_t>(slot);
  }

  // Score items exactly, and push those that were not seen. Where candidates are far apart, each of scale and item number costs a
  // miss of the cache, so that items are dropped by the bound of their block first.
  void score(const Segment& segment, Query& query, const uint32_t* slots, size_t count, bool check_seen) {
    if (check_seen) query.seen.prepare();
    profile.rescored += count;
    std::array<double, kRescored> sums, scales;
    std::array<float, kRescored> scores;
    std::array<uint32_t, kRescored> left;
    for (size_t size; count; slots += size, count -= size) {
      size = std::min(count, kRescored);
      lanes_.sums(segment.rows, request_.subcodes, query.lut.table(), slots, size, sums.data());
      std::copy(slots, slots + size, left.begin());
      size_t kept = size;
      if (segment.scale && slots[size - 1] - slots[0] > kBlock * size) {
        kept = 0;
        for (size_t i = 0; i < size; ++i) {
          const double bound = (sums[i] > 0 ? segment.largest : segment.smallest)[slots[i] / kBlock];
          sums[kept] = sums[i], left[kept] = slots[i];
          kept += !(sums[kept] * bound < query.top.least_unrounded());
        }
      }
      for (size_t i = 0; segment.scale && i < kept; ++i) scales[i] = scale_at(segment, left[i]);
      kept = lanes_.keep_scores(sums.data(), segment.scale ? scales.data() : nullptr, query.top.least_score(), kept, left.data(), scores.data());
      uint32_t last = 0;
      for (size_t i = 0; i < kept; ++i) last = std::max(last, left[i] = item_at(segment, left[i]));
      if (last >= request_.items) damaged();
      if (check_seen) kept = query.seen.without(scores.data(), left.data(), kept);
      profile.kept += query.top.push(scores.data(), left.data(), kept);
    }
  }

  const std::vector<Segment>& segments_;
  const Request& request_;
  Control& control_;
  const Lanes& lanes_;
  Clock clock_;
  size_t tile_ = 1;
  std::array<Query, kTogether> queries_;  // used again and again: their memory stays
  std::unique_ptr<uint8_t[]> values_;   // (tile, items of a pilot)
  std::unique_ptr<uint16_t[]> slots_;
  std::unique_ptr<uint32_t[]> kept_;
  double share_ = 1;                    // of the catalogue that is not banned
  bool rising_ = false;
  size_t steps_ = 0;                    // chunks so far
};

}  // namespace

Answer search(const std::vector<Segment>& segments, const Request& request, bool timed) {
  Answer answer;
  answer.keys.resize(request.queries);
  Control control(request);
  // Few queries a thread rather than idle threads.
  const size_t threads = std::clamp<size_t>(request.queries, 1, static_cast<size_t>(request.threads));
  const size_t together = std::clamp<size_t>((request.queries + threads - 1) / threads, 1, kTogether);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    Scanner scan_list(segments, request, control, timed);
    for (size_t begin; !control.stopped() && (begin = next.fetch_add(together)) < request.queries;) {
      scan_list.run(begin, std::min(begin + together, request.queries), answer.keys);
    }
    const std::lock_guard guard(control.lock);
    answer.profile += scan_list.profile;
  };
  std::vector<std::thread> others;
  try {
    others.reserve(threads - 1);
    for (size_t i = 1; i < threads; ++i) {
      control.enter();
      try {
        others.emplace_back([&] { control.guarded(work); });
      } catch (...) {
        control.leave();
        throw;
      }
    }
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do the work.
  } catch (...) {
    control.fail(std::current_exception());
  }
  control.enter();
  control.guarded(work);
  control.wait();
  for (std::thread& other : others) other.join();
  if (control.failure) std::rethrow_exception(control.failure);
  return answer;
}

void pack_blocks(const uint8_t* codes, size_t bytes, const uint32_t* order, size_t count, uint8_t* rows) {
  for (size_t slot = 0; slot < count; ++slot) {
    const uint8_t* code = codes + (order ? order[slot] : slot) * bytes;
    uint8_t* row = rows + slot / kBlock * 2 * bytes * kRow + slot % kRow;
    const int half = slot % kBlock < kRow ? 0 : 4;
    for (size_t i = 0; i < bytes; ++i, row += 2 * kRow) {
      row[0] |= static_cast<uint8_t>((code[i] & 15) << half);
      row[kRow] |= static_cast<uint8_t>((code[i] >> 4) << half);
    }
  }
}

void unpack_blocks(const uint8_t* rows, size_t bytes, size_t first, size_t count, uint8_t* codes) {
  for (size_t slot = first; slot < first + count; ++slot, codes += bytes) {
    const uint8_t* row = rows + slot / kBlock * 2 * bytes * kRow + slot % kRow;
    const int half = slot % kBlock < kRow ? 0 : 4;
    for (size_t i = 0; i < bytes; ++i, row += 2 * kRow) {
      codes[i] = static_cast<uint8_t>((row[0] >> half & 15) | (row[kRow] >> half & 15) << 4);
    }
  }
}

}  // namespace hashlgn
