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

constexpr size_t kPilot = 512;    // blocks of a first look, all of whose values are kept: its best set the bar
constexpr size_t kChunk = 64;     // blocks scanned before survivors are looked at: codes stay in cache
constexpr size_t kStretch = kChunk * kBlock + kSpill;  // places of one query in a chunk
constexpr size_t kZone = 16;      // blocks that share a bar
constexpr size_t kTogether = 64;  // queries that walk through the catalogue together
constexpr size_t kSome = 64;      // items scored at a time
constexpr size_t kSteps = 8;      // chunks between two looks at the clock
constexpr size_t kCrowd = 4096;   // items scored before bytes that tell them apart are thought of

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
  const Part* part;
  size_t block;   // its first
  size_t blocks;
  size_t items;   // the last block may be short
};

// One thread's walk through the catalogue with a few queries.
class Walk {
 public:
  Walk(const std::vector<Part>& parts, const Request& request, Control& control, bool timed)
      : parts_(parts), request_(request), control_(control), lanes_(*request.lanes), clock_(timed) {
    size_t most = 1;
    rising_ = request.probes == nullptr;
    for (const Part& part : parts) {
      most = std::max(most, std::min(part.blocks, kPilot));
      rising_ &= part.order == nullptr;
    }
    tile_ = std::min<size_t>(static_cast<size_t>(lanes_.tile), request.queries);
    if (request.k) values_.reset(new uint8_t[tile_ * kPilot * kBlock]);
    places_.reset(new uint16_t[std::max(tile_ * kStretch, most * kBlock + kSpill)]);
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
    profile.quantise += clock_.lap();
    for (const Part& part : parts_) {
      if (part.chosen) {
        for (Query* query : all) gather(part, *query);
      } else if (request_.probes) {
        for (size_t i = 0; i < all.size(); ++i) {
          for (size_t p = 0; p < request_.n_probes; ++p) {
            const int32_t list = request_.probes[(begin + i) * request_.n_probes + p];
            if (list >= 0 && static_cast<size_t>(list) < part.lists) walk(part, static_cast<size_t>(list), {all[i]});
          }
        }
      } else {
        for (size_t list = 0; list < part.lists; ++list) walk(part, list, all);
      }
    }
    profile.harvest += clock_.lap();
    for (size_t i = 0; i < all.size(); ++i) {
      all[i]->sort();
      keys[begin + i].assign(all[i]->hits.begin(), all[i]->hits.end());
    }
    profile.order += clock_.lap();
  }

 private:
  void walk(const Part& part, size_t list, std::vector<Query*> alive) {
    for (size_t done = 0; done < part.counts[list] && !stopped();) {
      const size_t block = part.starts[list] + done / kBlock;
      for (Query* query : alive) focus(part, block, *query);
      profile.quantise += clock_.lap();
      if (part.largest) {
        // Scales only fall: where the first block of a chunk cannot reach the bar, nothing after it can.
        std::erase_if(alive, [&](const Query* query) {
          return query->positive() && query->bar(smallest(part, block), largest(part, block)) > 255;
        });
      }
      if (alive.empty()) return;
      const bool pilot = std::any_of(alive.begin(), alive.end(), [](const Query* query) { return !query->bounded(); });
      Chunk chunk{&part, block, 0, std::min(part.counts[list] - done, (pilot ? kPilot : kChunk) * kBlock)};
      chunk.blocks = (chunk.items + kBlock - 1) / kBlock;
      visit(chunk, alive, pilot);
      if (std::vector<Query*> again; std::swap(again, again_), !again.empty()) {
        for (size_t first = 0; first < chunk.blocks; first += kChunk) {
          const Chunk some{&part, block + first, std::min(kChunk, chunk.blocks - first),
                           std::min(chunk.items - first * kBlock, kChunk * kBlock)};
          for (Query* query : again) focus(part, some.block, *query);
          visit(some, again, false);
        }
      }
      done += chunk.items;
    }
  }

  // All queries in a chunk, tile by tile. Those whose bytes are added in the same way share tiles.
  void visit(const Chunk& chunk, std::vector<Query*>& alive, bool pilot) {
    const auto others = std::partition(alive.begin(), alive.end(), [](const Query* query) { return query->plain; });
    const size_t plain = static_cast<size_t>(others - alive.begin());
    for (size_t first = 0; first < alive.size();) {
      size_t size = static_cast<size_t>(lanes_.tile);
      while (size > (first < plain ? plain : alive.size()) - first) size /= 2;
      if (pilot) look(chunk, &alive[first], size);
      else sweep(chunk, &alive[first], size);
      first += size;
    }
  }

  bool stopped() {
    if (++steps_ % kSteps == 0) control_.ask();
    return control_.stopped();
  }

  static double largest(const Part& part, size_t block) { return part.largest ? part.largest[block] : 1; }
  static double smallest(const Part& part, size_t block) { return part.smallest ? part.smallest[block] : 1; }

  // The bar for some blocks of a chunk, from `zone` on.
  static int zone_bar(const Chunk& chunk, size_t zone, size_t blocks, const Query& query) {
    const size_t last = std::min(zone + blocks, chunk.blocks) - 1;
    return query.bar(smallest(*chunk.part, chunk.block + last), largest(*chunk.part, chunk.block + zone));
  }

  const uint8_t* rows_at(const Chunk& chunk, size_t block) const {
    return chunk.part->rows + (chunk.block + block) * static_cast<size_t>(request_.words) * kRow;
  }

  // Scan a chunk with a bar, zone by zone, and score what passes.
  void sweep(const Chunk& chunk, Query* const* tile, size_t size) {
    std::array<const uint8_t*, kTile> tables{};
    std::array<uint16_t*, kTile> places{};
    std::array<size_t, kTile> counts{};
    std::array<uint8_t, kTile> bars{};
    for (size_t i = 0; i < size; ++i) {
      tables[i] = tile[i]->lines.data()->byte;
      places[i] = &places_[i * kStretch];
    }
    const size_t step = chunk.part->largest ? kZone : chunk.blocks;
    size_t seen = 0;  // items that were compared with a bar
    for (size_t zone = 0; zone < chunk.blocks; zone += step) {
      bool reached = false, falling = true;
      for (size_t i = 0; i < size; ++i) {
        const int bar = zone_bar(chunk, zone, step, *tile[i]);
        reached |= bar <= 255, falling &= tile[i]->positive();
        bars[i] = static_cast<uint8_t>(std::min(bar, 255));
      }
      if (!reached && falling) break;
      const size_t blocks = std::min(step, chunk.blocks - zone);
      lanes_.passing(rows_at(chunk, zone), blocks, request_.words, tile[0]->plain, static_cast<int>(size), tables.data(), bars.data(),
                     zone * kBlock, places.data(), counts.data());
      seen += std::min(blocks * kBlock, chunk.items - zone * kBlock);
    }
    profile.scanned += seen * size;
    profile.scan += clock_.lap();
    for (size_t i = 0; i < size; ++i) {
      tile[i]->passed(counts[i], seen);
      consider(chunk, *tile[i], places[i], counts[i], 0, true);
      if (rising_) tile[i]->later();
    }
    profile.harvest += clock_.lap();
  }

  // Scan a chunk where some queries have no bar yet: the greatest values first, until there are k hits, and these set one.
  void look(const Chunk& chunk, Query* const* tile, size_t size) {
    std::array<const uint8_t*, kTile> tables{};
    std::array<uint8_t*, kTile> values{};
    for (size_t i = 0; i < size; ++i) {
      tables[i] = tile[i]->lines.data()->byte;
      values[i] = &values_[i * kPilot * kBlock];
    }
    lanes_.values(rows_at(chunk, 0), chunk.blocks, request_.words, tile[0]->plain, static_cast<int>(size), tables.data(), values.data());
    profile.scanned += chunk.items * size;
    profile.scan += clock_.lap();
    for (size_t i = 0; i < size; ++i) {
      const bool forgot = forget(chunk, *tile[i], values[i]);
      const int below = tile[i]->bounded() ? 256 : greatest(chunk, *tile[i], values[i], forgot);
      if (below < 0) again_.push_back(tile[i]);
      if (below < 0) continue;
      const size_t step = chunk.part->largest ? std::clamp<size_t>(chunk.blocks / 8, 1, kZone) : chunk.blocks;
      for (size_t zone = 0; zone < chunk.blocks && below > 0; zone += step) {
        const int least = zone_bar(chunk, zone, step, *tile[i]);
        if (least >= below) continue;
        const size_t blocks = std::min(step, chunk.blocks - zone);
        const size_t found = lanes_.select(values[i] + zone * kBlock, blocks * kBlock, least, below, places_.get());
        consider(chunk, *tile[i], places_.get(), found, zone * kBlock, !forgot || least == 0);
      }
      if (rising_) tile[i]->later();
    }
    profile.harvest += clock_.lap();
  }

  // Write the query's table in bytes that suit a block; whether it was written.
  static bool focus(const Part& part, size_t block, Query& query) {
    if (query.bounded()) return query.focus(query.needed(smallest(part, block), largest(part, block)));
    query.prepare();
    return false;
  }

  // Where a bar is known by now, and bytes made for it tell more items apart: from here on with these, from the start.
  static bool restarted(const Chunk& chunk, Query& query) {
    query.settle();
    query.crowded();
    if (!focus(*chunk.part, chunk.block, query)) return false;
    query.restart();
    return true;
  }

  // Score the greatest values of a chunk until there are k hits; all values from the answer on have been scored.
  // Where bytes cannot tell too many items apart, some set a bar, and the answer is -1: the chunk is to be seen again.
  int greatest(const Chunk& chunk, Query& query, const uint8_t* values, bool forgot) {
    const size_t count = chunk.blocks * kBlock, crowd = kCrowd + 8 * query.k();
    const bool first = query.hits.empty();  // else hits of earlier chunks would be forgotten with those of this one
    double taken = 0;  // so many of the greatest are no hits: the seen ones to expect, then those that were considered
    if (!forgot) {
      taken = static_cast<double>(query.seen.size()) * static_cast<double>(chunk.items) / static_cast<double>(request_.items);
    }
    int below = 256;
    while (!query.full() && below > 0) {
      // More than are missing: bytes overstate sums by different amounts, and what they hide would be looked for a second time.
      const double wanted = taken + 1.5 * static_cast<double>(query.k() - query.hits.size()) / share_;
      const size_t sampled = std::max<size_t>(1, std::min(static_cast<size_t>(wanted / 32), count / 64 / 16));
      const size_t stride = std::max(sampled, count / 64 / 256);
      int least = 0;
      for (int step = 128; step; step /= 2) {
        if (least + step >= below) continue;
        const size_t over = lanes_.count(values, count, stride, least + step) * stride;
        if (static_cast<double>(over) >= wanted) least += step;
      }
      const size_t found = lanes_.select(values, count, least, below, places_.get());
      for (size_t done = 0; done < found; done += crowd) {
        if (done && first && restarted(chunk, query)) return -1;
        consider(chunk, query, places_.get() + done, std::min(crowd, found - done), 0, !forgot || least == 0);
      }
      taken += static_cast<double>(found), below = least;
    }
    query.settle();
    if (!query.bounded() || !first || count <= crowd) return below;
    size_t left = 0;
    const size_t step = chunk.part->largest ? kZone : chunk.blocks;
    for (size_t zone = 0; zone < chunk.blocks; zone += step) {
      const int least = zone_bar(chunk, zone, step, query);
      if (least >= below) continue;
      const size_t items = std::min(step, chunk.blocks - zone) * kBlock;
      left += lanes_.count(values + zone * kBlock, items, 1, least);
      if (below <= 255) left -= lanes_.count(values + zone * kBlock, items, 1, below);
    }
    return left > crowd && restarted(chunk, query) ? -1 : below;
  }

  // Make the values of items that were seen 0, so that they neither count among the greatest nor need to be looked up.
  // False where their places are not known.
  bool forget(const Chunk& chunk, const Query& query, uint8_t* values) const {
    const Part& part = *chunk.part;
    if (part.order && !part.places) return false;
    const size_t start = chunk.block * kBlock;
    for (const int64_t item : query.seen) {
      const size_t number = static_cast<size_t>(item) - part.first;  // of an item before the part: beyond its end
      if (number >= part.items) continue;
      const size_t place = part.places ? part.places[number] : number;
      if (place - start < chunk.items) values[place - start] = 0;
    }
    return true;
  }

  // Score the items at some places of a chunk, `shift` further on, that are not banned.
  void consider(const Chunk& chunk, Query& query, const uint16_t* places, size_t count, size_t shift, bool check_seen) {
    const size_t start = chunk.block * kBlock;
    const uint32_t first = static_cast<uint32_t>(start + shift), end = static_cast<uint32_t>(start + chunk.items);
    for (size_t i = 0; i < count; ++i) kept_[i] = first + places[i];
    size_t kept = count;
    if (chunk.items % kBlock || request_.banned) {
      kept = 0;
      for (size_t i = 0; i < count; ++i) {
        kept_[kept] = kept_[i];
        kept += kept_[kept] < end && !banned(*chunk.part, kept_[kept]);  // the last block may not be full
      }
    }
    score(*chunk.part, query, kept_.get(), kept, check_seen);
  }

  void gather(const Part& part, Query& query) {
    for (size_t start = 0; start < part.n_chosen && !stopped(); start += kChunk * kBlock) {
      size_t kept = 0;
      for (size_t i = start; i < std::min(part.n_chosen, start + kChunk * kBlock); ++i) {
        kept_[kept] = part.chosen[i];
        kept += !banned(part, part.chosen[i]);
      }
      score(part, query, kept_.get(), kept, true);
    }
  }

  bool banned(const Part& part, size_t place) {
    if (!request_.banned) return false;
    const size_t item = item_at(part, place);
    if (item >= request_.items) damaged();
    return request_.banned[item] != 0;
  }

  [[noreturn]] static void damaged() {
    throw std::invalid_argument("order must hold item numbers of the catalogue: the index is damaged");
  }

  static uint32_t item_at(const Part& part, size_t place) {
    return part.order ? part.order[place] : part.first + static_cast<uint32_t>(place);
  }

  // Score items; offer those that were not seen. Where survivors are far between, what a score hangs on is read step by step,
  // since few get to its end.
  void score(const Part& part, Query& query, const uint32_t* places, size_t count, bool check_seen) {
    if (check_seen) query.seen.prepare();
    profile.rescored += count;
    std::array<double, kSome> sums, scales;
    std::array<float, kSome> scores;
    std::array<uint32_t, kSome> left;
    for (size_t size; count; places += size, count -= size) {
      size = std::min(count, kSome);
      lanes_.sums(part.rows, request_.words, query.table.data(), places, size, sums.data());
      std::copy(places, places + size, left.begin());
      size_t kept = size;
      if (part.scale && places[size - 1] - places[0] > kBlock * size) {
        kept = 0;
        for (size_t i = 0; i < size; ++i) {
          const double bound = (sums[i] > 0 ? part.largest : part.smallest)[places[i] / kBlock];
          sums[kept] = sums[i], left[kept] = places[i];
          kept += !(sums[kept] * bound < query.least());
        }
      }
      for (size_t i = 0; part.scale && i < kept; ++i) scales[i] = scale_at(part, left[i]);
      kept = lanes_.wanted(sums.data(), part.scale ? scales.data() : nullptr, query.wanted(), kept, left.data(), scores.data());
      uint32_t last = 0;
      for (size_t i = 0; i < kept; ++i) last = std::max(last, left[i] = item_at(part, left[i]));
      if (last >= request_.items) damaged();
      if (check_seen) kept = query.seen.without(scores.data(), left.data(), kept);
      profile.kept += query.offer(scores.data(), left.data(), kept);
    }
  }

  const std::vector<Part>& parts_;
  const Request& request_;
  Control& control_;
  const Lanes& lanes_;
  Clock clock_;
  size_t tile_ = 1;
  std::array<Query, kTogether> queries_;  // used again and again: their memory stays
  std::unique_ptr<uint8_t[]> values_;   // (tile, items of a pilot)
  std::unique_ptr<uint16_t[]> places_;
  std::unique_ptr<uint32_t[]> kept_;
  double share_ = 1;                    // of the catalogue that is not banned
  bool rising_ = false;
  std::vector<Query*> again_;           // know their bar, but are to see the chunk again
  size_t steps_ = 0;                    // chunks so far
};

}  // namespace

Answer search(const std::vector<Part>& parts, const Request& request, bool timed) {
  Answer answer;
  answer.keys.resize(request.queries);
  Control control(request);
  // Few queries a thread rather than idle threads.
  const size_t threads = std::clamp<size_t>(request.queries, 1, static_cast<size_t>(request.threads));
  const size_t together = std::clamp<size_t>((request.queries + threads - 1) / threads, 1, kTogether);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    Walk walk(parts, request, control, timed);
    for (size_t begin; !control.stopped() && (begin = next.fetch_add(together)) < request.queries;) {
      walk.run(begin, std::min(begin + together, request.queries), answer.keys);
    }
    const std::lock_guard guard(control.lock);
    answer.profile += walk.profile;
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
  for (size_t place = 0; place < count; ++place) {
    const uint8_t* code = codes + (order ? order[place] : place) * bytes;
    uint8_t* row = rows + place / kBlock * 2 * bytes * kRow + place % kRow;
    const int half = place % kBlock < kRow ? 0 : 4;
    for (size_t i = 0; i < bytes; ++i, row += 2 * kRow) {
      row[0] |= static_cast<uint8_t>((code[i] & 15) << half);
      row[kRow] |= static_cast<uint8_t>((code[i] >> 4) << half);
    }
  }
}

void unpack_blocks(const uint8_t* rows, size_t bytes, size_t first, size_t count, uint8_t* codes) {
  for (size_t place = first; place < first + count; ++place, codes += bytes) {
    const uint8_t* row = rows + place / kBlock * 2 * bytes * kRow + place % kRow;
    const int half = place % kBlock < kRow ? 0 : 4;
    for (size_t i = 0; i < bytes; ++i, row += 2 * kRow) {
      codes[i] = static_cast<uint8_t>((row[0] >> half & 15) | (row[kRow] >> half & 15) << 4);
    }
  }
}

}  // namespace hashlgn
