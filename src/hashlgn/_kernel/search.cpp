#include "search.hpp"

#include <future>
#include <mutex>
#include <system_error>

#include "scanner.hpp"

namespace hashlgn {

Answer search(const std::vector<Segment>& segments, const Request& request, bool timed) {
  Answer answer;
  answer.keys.resize(request.queries);
  Control control(request.interrupted);
  // Few queries a thread rather than idle threads.
  const size_t threads = std::clamp<size_t>(request.queries, 1, static_cast<size_t>(request.threads));
  const size_t together = std::clamp<size_t>((request.queries + threads - 1) / threads, 1, kTogether);
  std::atomic<size_t> next{0};
  std::mutex lock;
  const auto work = [&] {
    try {
      Scanner scanner(segments, request, control, timed);
      for (size_t begin; !control.stopped() && (begin = next.fetch_add(together)) < request.queries;) {
        scanner.run(begin, std::min(begin + together, request.queries), answer.keys);
      }
      const std::lock_guard guard(lock);
      answer.profile += scanner.profile;
    } catch (...) {
      control.stop();
      throw;
    }
  };
  std::vector<std::future<void>> others;  // each waits for its thread when it goes
  others.reserve(threads - 1);
  try {
    while (others.size() < threads - 1) others.push_back(std::async(std::launch::async, work));
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do the work.
  } catch (...) {
    control.stop();
    throw;
  }
  work();
  for (std::future<void>& other : others) {
    while (other.wait_for(Control::kPatience) != std::future_status::ready) control.ask();
    other.get();
  }
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

void unpack_blocks(const uint8_t* rows, size_t bytes, const uint32_t* slots, size_t count, uint8_t* codes) {
  for (size_t c = 0; c < count; ++c, codes += bytes) {
    const size_t slot = slots[c];
    const uint8_t* row = rows + slot / kBlock * 2 * bytes * kRow + slot % kRow;
    const int half = slot % kBlock < kRow ? 0 : 4;
    for (size_t i = 0; i < bytes; ++i, row += 2 * kRow) {
      codes[i] = static_cast<uint8_t>((row[0] >> half & 15) | (row[kRow] >> half & 15) << 4);
    }
  }
}

}  // namespace hashlgn
