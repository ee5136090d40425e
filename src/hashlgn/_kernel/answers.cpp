// Answers to histories in one call: numbers of ids, rows, queries, tables and search, with no Python in between. A search of a large
// catalogue fills the caches: each step that Python takes after it costs several times what it costs alone.
#include <atomic>
#include <chrono>

#include <nanobind/stl/pair.h>

#include "catalogue.hpp"
#include "histories.hpp"
#include "lookup.hpp"

namespace hashlgn {
namespace {

// A catalogue of codes under codewords, and the histories of its users.
class HeldAnswers {
 public:
  HeldAnswers(const std::vector<const HeldSegment*>& catalogue, In<float, 2> columns, const HeldCodes* histories, const Segments& stored,
              int64_t users, std::optional<In<bool, 1>> banned, const HeldIds* user_ids, const HeldIds* item_ids, int threads,
              const std::string& isa)
      : columns_(columns), histories_(histories), stored_(stored), users_(users), banned_(banned), user_ids_(user_ids), item_ids_(item_ids),
        threads_(threads), lanes_(lanes_named(isa)) {
    require(histories, "histories must not be None");
    require(columns.shape(0) == histories->width() && columns.shape(1) % 16 == 0, "columns must fit the histories");
    require(!banned || banned->shape(0) == histories->size(), "banned must have one value per item");
    require(!item_ids || item_ids->size() == histories->size(), "item_ids must have one id per item");
    require(threads >= 1, "threads must be positive");
    segments_ = segments_of(catalogue, std::nullopt, columns.shape(1) / 16);
  }

  // Numbers of stored users, row bounds, items and scores, and ids of the items where they are integers; with `own`, without the
  // items of their histories. None where an id is not found, or somebody has no history, or one that breaks a rule: the caller
  // finds out which.
  nb::object stored(nb::list ids, size_t k, bool own) const {
    std::vector<int64_t> users;
    if (!user_ids_ || !user_ids_->find(ids, users)) return nb::none();
    return answer(users, Gathered(stored_, users, users_), k, own);
  }

  // The same of one history, with the numbers of its items, ascending.
  nb::object given(nb::list ids, size_t k, bool own) const {
    Gathered history;
    if (!item_ids_ || !item_ids_->find(ids, history.items)) return nb::none();
    std::sort(history.items.begin(), history.items.end());
    history.items.erase(std::unique(history.items.begin(), history.items.end()), history.items.end());
    history.bounds.push_back(static_cast<int64_t>(history.items.size()));
    return answer(history.items, history, k, own);
  }

  // Of each history, a tuple of items, ascending, and strengths or None, the k best that it does not have: lists of numbers, ids and
  // scores. No array is made: after a search, each costs several times what it costs alone.
  nb::object lists(nb::list histories, const std::vector<size_t>& ks) const {
    require(histories.size() == ks.size() && item_ids_, "histories must have one k each, and items must have ids");
    Gathered rows;
    for (nb::handle history : histories) {
      const auto [items, strengths] = nb::cast<std::pair<nb::object, std::optional<In<float, 1>>>>(history, false);
      In<int32_t, 1> narrow;
      if (nb::try_cast(items, narrow, false)) append(rows, narrow, strengths);
      else append(rows, nb::cast<In<int64_t, 1>>(items, false), strengths);
    }
    if (empty(rows)) return nb::none();
    std::optional<Answer> found;
    {
      const nb::gil_scoped_release released;
      found = search_of(rows, *std::max_element(ks.begin(), ks.end()), true);
    }
    if (PyErr_Occurred()) throw nb::python_error();
    if (!found) return nb::none();
    nb::list out;
    for (size_t row = 0; row < ks.size(); ++row) {
      nb::list numbers, ids, scores;
      for (size_t i = 0; i < std::min(ks[row], found->keys[row].size()); ++i) {
        const uint64_t key = found->keys[row][i];
        numbers.append(item_of(key)), ids.append(item_ids_->id(item_of(key))), scores.append(static_cast<double>(score_of(key)));
      }
      out.append(nb::make_tuple(numbers, ids, scores));
    }
    return out;
  }

  // Seconds of the last search, from queries to hits.
  double seconds() const { return seconds_; }

 private:
  // Whether there is no history, or one of them is empty.
  static bool empty(const Gathered& rows) {
    return rows.bounds.size() < 2 || std::adjacent_find(rows.bounds.begin(), rows.bounds.end()) != rows.bounds.end();
  }

  template <class T>
  static void append(Gathered& rows, const In<T, 1>& items, const std::optional<In<float, 1>>& strengths) {
    const size_t before = rows.items.size(), size = items.shape(0);
    rows.items.insert(rows.items.end(), items.data(), items.data() + size);
    rows.bounds.push_back(static_cast<int64_t>(rows.items.size()));
    if (!strengths) {
      if (!rows.strengths.empty()) rows.strengths.resize(rows.items.size(), 1.0f);
      return;
    }
    require(strengths->shape(0) == size, "strengths must have one number per item");
    rows.strengths.resize(before, 1.0f);
    rows.strengths.insert(rows.strengths.end(), strengths->data(), strengths->data() + size);
  }

  // All arrays are made before the search.
  nb::object answer(const std::vector<int64_t>& asked, const Gathered& rows, size_t k, bool own) const {
    const size_t count = rows.bounds.size() - 1, most = count * std::min(k, histories_->size());
    if (empty(rows)) return nb::none();
    const int64_t* integers = item_ids_ ? item_ids_->integers() : nullptr;
    const nb::object numbers = array_of(asked);
    HitArrays hits(count, most);
    EarlyArray<int64_t> ids(integers ? most : 0);
    std::optional<Answer> found;
    {
      const nb::gil_scoped_release released;
      found = search_of(rows, k, own);
    }
    if (PyErr_Occurred()) throw nb::python_error();
    if (!found) return nb::none();
    const size_t size = hits.fill(*found);
    if (!integers) return nb::make_tuple(numbers, hits.bounds, hits.items.held, hits.scores.held, nb::none());
    const int64_t* items = hits.items.made(size);
    std::transform(items, items + size, ids.made(size), [integers](int64_t item) { return integers[item]; });
    return nb::make_tuple(numbers, hits.bounds, hits.items.held, hits.scores.held, ids.held);
  }

  // Works without the interpreter lock.
  std::optional<Answer> search_of(const Gathered& rows, size_t k, bool own) const {
    const size_t count = rows.bounds.size() - 1, width = columns_.shape(0), cells = columns_.shape(1);
    const float* strengths = rows.strengths.empty() ? nullptr : rows.strengths.data();
    std::vector<float> queries(count * width), tables(count * cells);
    if (!histories_->make(rows.bounds.data(), count, rows.items.data(), rows.items.size(), strengths, queries.data())) return std::nullopt;
    const auto start = std::chrono::steady_clock::now();
    const std::vector<double> wide(queries.begin(), queries.end());
    std::vector<double> products(count * cells);
    lanes_->product(wide.data(), count, width, columns_.data(), cells, products.data());
    std::transform(products.begin(), products.end(), tables.begin(), [](double entry) { return static_cast<float>(entry); });
    Request request{};
    request.tables = tables.data(), request.queries = count, request.subcodes = static_cast<int>(cells / 16);
    request.items = histories_->size(), request.k = std::min(k, request.items);
    if (own) request.indptr = rows.bounds.data(), request.seen = rows.items.data();
    if (banned_) request.banned = reinterpret_cast<const uint8_t*>(banned_->data());
    request.threads = threads_, request.lanes = lanes_, request.interrupted = interrupted;
    Answer found = search(segments_, request, false);
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return found;
  }

  std::vector<Segment> segments_;
  In<float, 2> columns_;  // codewords, (width, 16 sub-codes)
  const HeldCodes* histories_;
  Segments stored_;
  int64_t users_;
  std::optional<In<bool, 1>> banned_;
  const HeldIds *user_ids_, *item_ids_;  // or null
  int threads_;
  const Lanes* lanes_;
  mutable std::atomic<double> seconds_{0};
};

}  // namespace

void bind_answers(nb::module_& m) {
  nb::class_<HeldAnswers>(m, "Answers")
      .def(nb::init<const std::vector<const HeldSegment*>&, In<float, 2>, const HeldCodes*, const Segments&, int64_t,
                    std::optional<In<bool, 1>>, const HeldIds*, const HeldIds*, int, const std::string&>(),
           nb::keep_alive<1, 2>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 8>(), nb::keep_alive<1, 9>(),
           "catalogue"_a, "columns"_a.noconvert(), "histories"_a, "stored"_a, "users"_a, "banned"_a.noconvert().none(),
           "user_ids"_a.none(), "item_ids"_a.none(), "threads"_a, "isa"_a)
      .def_prop_ro("seconds", &HeldAnswers::seconds)
      .def("stored", &HeldAnswers::stored, "ids"_a, "k"_a, "own"_a)
      .def("given", &HeldAnswers::given, "ids"_a, "k"_a, "own"_a)
      .def("lists", &HeldAnswers::lists, "histories"_a, "ks"_a);
}

}  // namespace hashlgn
