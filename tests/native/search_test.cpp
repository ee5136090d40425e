// The search without Python, on every instruction set of the machine, against scores computed one by one.
// `make native-test` builds it for this machine, and for AArch64 where a cross-compiler and an emulator are at hand.
#include <cstdio>
#include <cstring>
#include <random>

#include "../../src/hashlgn/_kernel/scanner.hpp"

namespace hashlgn {
#if defined(__x86_64__)
extern const Lanes avx512, avx2;
#elif defined(__aarch64__)
extern const Lanes neon;
#endif
extern const Lanes portable;
}  // namespace hashlgn

using namespace hashlgn;

namespace {

std::mt19937_64 random_bits(1);
double uniform() { return std::uniform_real_distribution<double>(0, 1)(random_bits); }
size_t below(size_t n) { return random_bits() % n; }

struct Case {
  size_t items, subcodes, queries, k;
  bool scaled, whole, heavy, filtered;
};

// One catalogue and its answers by definition; returns how many instruction sets differ.
int check(const Case& c, const std::vector<const Lanes*>& sets) {
  const size_t bytes = c.subcodes / 2, blocks = (c.items + kBlock - 1) / kBlock, slots = blocks * kBlock;
  std::vector<uint8_t> codes(c.items * bytes);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i / bytes % 2 && i >= bytes ? codes[i - bytes] : random_bits());
  if (c.heavy) {
    for (size_t i = 0; i < c.items; ++i) codes[i * bytes] = static_cast<uint8_t>(below(1000) ? codes[i * bytes] & 0xF7 : codes[i * bytes] | 0x0F);
  }
  std::vector<float> scale(c.items, 1.0f);
  if (c.scaled) for (float& s : scale) s = static_cast<float>(c.whole ? 0.5 + 0.5 * static_cast<double>(below(3)) : std::exp(6 * uniform() - 3));
  std::vector<uint32_t> order(slots);
  for (size_t i = 0; i < c.items; ++i) order[i] = static_cast<uint32_t>(i);
  if (c.scaled) std::stable_sort(order.begin(), order.begin() + static_cast<long>(c.items), [&](uint32_t a, uint32_t b) { return scale[a] > scale[b]; });
  std::fill(order.begin() + static_cast<long>(c.items), order.end(), order[c.items - 1]);
  std::vector<uint8_t> rows(blocks * c.subcodes * kRow + 64);
  uint8_t* aligned = rows.data() + (64 - reinterpret_cast<uintptr_t>(rows.data()) % 64) % 64;
  pack_blocks(codes.data(), bytes, order.data(), c.items, aligned);
  std::vector<uint8_t> back(c.items * bytes);
  std::vector<uint32_t> all(c.items);
  std::iota(all.begin(), all.end(), 0u);
  unpack_blocks(aligned, bytes, all.data(), c.items, back.data());
  for (size_t i = 0; i < c.items; ++i) {
    if (std::memcmp(&back[i * bytes], &codes[order[i] * bytes], bytes) != 0) return std::printf("unpacked codes differ\n"), 1;
  }
  std::vector<float> held(slots), largest(blocks), smallest(blocks, 1e30f);
  for (size_t p = 0; p < slots; ++p) {
    held[p] = scale[order[p]];
    largest[p / kBlock] = std::max(largest[p / kBlock], held[p]);
    smallest[p / kBlock] = std::min(smallest[p / kBlock], held[p]);
  }
  const uint32_t start = 0, count = static_cast<uint32_t>(c.items);
  Segment segment{};
  segment.rows = aligned, segment.blocks = blocks;
  segment.starts = &start, segment.counts = &count, segment.lists = 1;
  if (c.scaled) {
    segment.order = order.data(), segment.scale = held.data();
    segment.largest = largest.data(), segment.smallest = smallest.data();
  }

  std::vector<float> tables(c.queries * c.subcodes * 16);
  std::normal_distribution<double> normal;
  for (float& entry : tables) entry = static_cast<float>(c.whole ? std::nearbyint(2 * normal(random_bits)) : normal(random_bits));
  if (c.heavy) for (size_t q = 0; q < c.queries; ++q) tables[q * c.subcodes * 16 + 15] += 500;
  std::vector<uint8_t> banned(c.items);
  std::vector<int64_t> indptr(1), seen;
  for (size_t q = 0; q < c.queries; ++q) {
    for (size_t i = 0; c.filtered && i < c.items; ++i) if (below(4) == q % 4) seen.push_back(static_cast<int64_t>(i));
    indptr.push_back(static_cast<int64_t>(seen.size()));
  }
  if (c.filtered) for (uint8_t& b : banned) b = below(3) == 0;

  const auto score_of_item = [&](size_t q, size_t i) {
    double sum = 0;
    for (size_t m = 0; m < c.subcodes; ++m) sum += tables[(q * c.subcodes + m) * 16 + (codes[i * bytes + m / 2] >> (m % 2 * 4) & 15)];
    return static_cast<float>(c.scaled ? sum * static_cast<double>(scale[i]) : sum);
  };
  // An item of the first query is just over the threshold: one of the better ones.
  float threshold = score_of_item(0, below(c.items));
  for (int i = 0; i < 10; ++i) threshold = std::max(threshold, score_of_item(0, below(c.items)));
  threshold = std::nextafter(threshold, -std::numeric_limits<float>::infinity());
  Request request{tables.data(), c.queries, static_cast<int>(c.subcodes), c.k, threshold, indptr.data(), seen.data(), c.filtered ? banned.data() : nullptr,
                  c.items, nullptr, 0, 1, nullptr};
  std::vector<std::vector<uint64_t>> target(c.queries);
  for (size_t q = 0; q < c.queries; ++q) {
    for (size_t i = 0; i < c.items; ++i) {
      const float score = score_of_item(q, i);
      const bool out = banned[i] || std::binary_search(seen.begin() + indptr[q], seen.begin() + indptr[q + 1], static_cast<int64_t>(i));
      if (!out && (c.k || score > request.threshold)) target[q].push_back(key_of(score, static_cast<uint32_t>(i)));
    }
    std::sort(target[q].begin(), target[q].end(), std::greater<>());
    if (c.k && target[q].size() > c.k) target[q].resize(c.k);
  }
  int wrong = 0;
  for (const Lanes* lanes : sets) {
    request.lanes = lanes;
    const Answer answer = search({segment}, request, false);
    if (answer.keys == target) continue;
    ++wrong;
    std::printf("%s differs: %zu items, %zu sub-codes, %zu queries, k %zu, scaled %d, whole %d, heavy %d, filtered %d\n", lanes->name, c.items,
                c.subcodes, c.queries, c.k, c.scaled, c.whole, c.heavy, c.filtered);
  }
  return wrong;
}

}  // namespace

int main() {
  std::vector<const Lanes*> sets{&portable};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) sets.push_back(&avx2);
  if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2")) sets.push_back(&avx512);
#elif defined(__aarch64__)
  sets.push_back(&neon);
#endif
  int wrong = 0, cases = 0;
  for (const size_t items : {1, 64, 127, 128, 129, 1000, 8191, 8193, 66000}) {
    for (const size_t subcodes : {2, 4, 10, 16, 18, 32, 66, 258}) {
      if (items > 9000 && subcodes > 18) continue;
      for (int kind = 0; kind < 16; ++kind) {
        const size_t queries = 1 + below(9);
        const size_t k = below(3) ? 1 + below(std::min<size_t>(items, 600)) : 0;
        if (items > 9000 && kind % 3) continue;
        wrong += check({items, subcodes, queries, k, bool(kind & 1), bool(kind & 2), bool(kind & 4), bool(kind & 8)}, sets);
        ++cases;
      }
    }
  }
  std::printf("%d cases on", cases);
  for (const Lanes* lanes : sets) std::printf(" %s", lanes->name);
  std::printf(": %d wrong\n", wrong);
  return wrong != 0;
}
