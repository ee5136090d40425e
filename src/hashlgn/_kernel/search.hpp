// Exact search over packed codes, without Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lanes.hpp"

namespace hashlgn {

// Some items of a catalogue: codes in blocks, cut into lists. In each list items stand by falling scale, and a list
// begins with a block of its own.
struct Segment {
  const uint8_t* rows;      // (blocks, subcodes, 64)
  size_t blocks;
  const uint32_t* order;    // item of each slot, or null: first + slot
  const uint8_t* holes;     // a bit per slot, set where its item has moved to another segment, or null: none has
  uint32_t first;
  const void* scale;        // of each slot, half or float, or null: 1
  bool half;                // whether scales are halves
  const float* largest;     // largest scale of each block, or null
  const float* smallest;
  const uint32_t* starts;   // first block of each list
  const uint32_t* counts;   // items of each list
  size_t lists;
  const uint32_t* chosen;   // the only slots that matter, ascending, or null
  size_t n_chosen;
};

struct Request {
  const float* tables;      // (queries, subcodes, 16)
  size_t queries;
  int subcodes;
  size_t k;                 // 0: every item over the threshold
  double threshold;
  const int64_t* indptr;    // seen items of each query, or null
  const int64_t* seen;
  const uint8_t* banned;    // (items), or null
  size_t items;             // of the whole catalogue
  const int32_t* probes;    // (queries, n_probes): lists to scan, -1 for none; null for all
  size_t n_probes;
  int threads;
  const Lanes* lanes;
  bool (*interrupted)() = nullptr;  // whether the caller wants no answer any more; the calling thread asks it now and then
};

// What each stage did, over all queries.
struct Profile {
  uint64_t scanned = 0;   // items times queries
  uint64_t rescored = 0;  // exact scores
  uint64_t kept = 0;      // scores that reached the threshold of their time
  double quantize = 0, scan = 0, rescore = 0, order = 0;  // seconds

  void operator+=(const Profile& other) {
    scanned += other.scanned, rescored += other.rescored, kept += other.kept;
    quantize += other.quantize, scan += other.scan, rescore += other.rescore, order += other.order;
  }
};

struct Answer {
  std::vector<std::vector<uint64_t>> keys;  // a query's hits, best first
  Profile profile;
};

// Raises what went wrong in any thread: std::bad_alloc, or std::invalid_argument for a damaged index and a table that is not
// finite. After an interruption the answer is not whole.
Answer search(const std::vector<Segment>& segments, const Request& request, bool timed);

// Codes (items, subcodes / 2) in the given order to blocks, and back from some slots.
void pack_blocks(const uint8_t* codes, size_t bytes, const uint32_t* order, size_t count, uint8_t* rows);
void unpack_blocks(const uint8_t* rows, size_t bytes, const uint32_t* slots, size_t count, uint8_t* codes);

}  // namespace hashlgn
