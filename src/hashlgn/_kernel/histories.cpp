// The binding of histories: rows of stored users, and queries from codes.
#include "histories.hpp"

namespace hashlgn {
namespace {

bool ascending(In<int64_t, 1> indptr, In<int64_t, 1> indices, int64_t n) {
  return indptr.shape(0) && ascending_rows(indptr.data(), indptr.shape(0) - 1, indices.data(), indices.shape(0), n);
}

// The users who have an item, ascending.
nb::object who(const std::vector<HeldRows*>& segments, int32_t item) {
  std::vector<int64_t> users;
  require_segments({segments.begin(), segments.end()});
  for (size_t s = 0; s < segments.size(); ++s) {
    segments[s]->each_user(item, [&](int64_t user) {
      const auto later = [&](const HeldRows* one) { return one->find(user).has_value(); };
      if (std::none_of(segments.begin() + static_cast<std::ptrdiff_t>(s) + 1, segments.end(), later)) users.push_back(user);
    });
  }
  std::sort(users.begin(), users.end());
  return array_of(users);
}

// The strength of items in the histories of users, see strength_of.
nb::object strengths(const Segments& segments, In<int64_t, 1> users, In<int64_t, 1> items) {
  require(users.shape(0) == items.shape(0), "users and items must be of one length");
  require_segments(segments);
  float* data;
  nb::object out = array<float>(users.shape(0), data);
  for (size_t i = 0; i < users.shape(0); ++i) data[i] = strength_of(segments, users.data()[i], items.data()[i]);
  return out;
}

nb::tuple gather(const Segments& segments, In<int64_t, 1> users, int64_t count) {
  const Gathered found(segments, {users.data(), users.data() + users.shape(0)}, count);
  const bool weighted = !segments.empty() && segments[0]->weighted();
  return nb::make_tuple(array_of(found.bounds), array_of(found.items), weighted ? array_of(found.strengths) : nb::object(nb::none()));
}

// A column of some rows; None where no segment has it, and 0 where that of the row has not.
template <class T, class Column>
nb::object column(const Segments& segments, const std::vector<std::pair<const HeldRows*, std::pair<int64_t, int64_t>>>& rows, size_t count,
                  const Column& of) {
  if (std::none_of(segments.begin(), segments.end(), [&](const HeldRows* one) { return of(*one).has_value(); })) return nb::none();
  T* data;
  nb::object out = array<T>(count, data);
  for (const auto& [segment, span] : rows) {
    const size_t size = static_cast<size_t>(span.second - span.first);
    if (size && of(*segment)) std::copy_n(of(*segment)->data() + span.first, size, data);
    else std::fill_n(data, size, T{});
    data += size;
  }
  return out;
}

// The users of segments, each once, ascending.
std::vector<int64_t> users_of(const Segments& segments) {
  std::vector<int64_t> users;
  for (const HeldRows* one : segments) one->add_users(users);
  std::sort(users.begin(), users.end());
  users.erase(std::unique(users.begin(), users.end()), users.end());
  return users;
}

// Rows of some users, or of all users of the segments, with all columns.
nb::tuple columns(const Segments& segments, std::optional<In<int64_t, 1>> some) {
  require_segments(segments);
  const std::vector<int64_t> users = some ? std::vector<int64_t>(some->data(), some->data() + some->shape(0)) : users_of(segments);
  std::vector<std::pair<const HeldRows*, std::pair<int64_t, int64_t>>> rows;
  std::vector<int64_t> bounds{0};
  for (const int64_t user : users) {
    const auto [segment, row] = row_of(segments, user);
    rows.emplace_back(segment, segment ? segment->bounds(row) : std::pair<int64_t, int64_t>{0, 0});
    bounds.push_back(bounds.back() + rows.back().second.second - rows.back().second.first);
  }
  const size_t count = static_cast<size_t>(bounds.back());
  int32_t* items;
  nb::object indices = array<int32_t>(count, items);
  for (const auto& [segment, span] : rows) {
    if (segment) items = std::copy(segment->items() + span.first, segment->items() + span.second, items);
  }
  return nb::make_tuple(array_of(users), array_of(bounds), indices,
                        column<float>(segments, rows, count, [](const HeldRows& one) { return one.strengths(); }),
                        column<int64_t>(segments, rows, count, [](const HeldRows& one) { return one.times(); }),
                        column<bool>(segments, rows, count, [](const HeldRows& one) { return one.newer(); }));
}

// Rows of the users of new interactions: what is stored of them and the new ones, by item. Users, bounds, and columns.
nb::tuple extended(const Segments& segments, In<int64_t, 1> users, In<int64_t, 1> items, std::optional<In<float, 1>> strengths,
                   std::optional<In<int64_t, 1>> times) {
  const size_t fresh = users.shape(0);
  require_segments(segments);
  require(items.shape(0) == fresh && (!strengths || strengths->shape(0) == fresh) && (!times || times->shape(0) == fresh),
          "items, strengths and times must have one number per user");
  for (size_t i = 0; i < fresh; ++i) require(items.data()[i] >= 0 && items.data()[i] <= INT32_MAX, "items must be numbers of items");
  std::vector<size_t> order(fresh);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(users.data()[a], items.data()[a]) < std::pair(users.data()[b], items.data()[b]);
  });
  const auto any = [&](const auto& has) { return std::any_of(segments.begin(), segments.end(), has); };
  const bool weighted = any([](const HeldRows* one) { return one->strengths().has_value(); });
  const bool timed = any([](const HeldRows* one) { return one->times().has_value(); });
  std::vector<int64_t> owners, bounds{0};
  std::vector<int32_t> indices;
  std::vector<float> weights;
  std::vector<int64_t> moments;
  std::vector<uint8_t> newer;
  for (size_t next = 0; next < fresh;) {
    const int64_t user = users.data()[order[next]];
    const auto add_new = [&] {
      const size_t place = order[next++];
      indices.push_back(static_cast<int32_t>(items.data()[place])), newer.push_back(1);
      if (weighted) weights.push_back(strengths ? strengths->data()[place] : 1.0f);
      if (timed) moments.push_back(times ? times->data()[place] : 0);
    };
    const auto is_new = [&](int64_t before) {
      return next < fresh && users.data()[order[next]] == user && items.data()[order[next]] < before;
    };
    if (const auto [segment, row] = row_of(segments, user); segment) {
      const auto [begin, end] = segment->bounds(row);
      for (int64_t place = begin; place < end; ++place) {
        while (is_new(segment->items()[place])) add_new();
        indices.push_back(segment->items()[place]);
        newer.push_back(segment->newer() && segment->newer()->data()[place]);
        if (weighted) weights.push_back(segment->strengths() ? segment->strengths()->data()[place] : 0.0f);
        if (timed) moments.push_back(segment->times() ? segment->times()->data()[place] : 0);
      }
    }
    while (is_new(std::numeric_limits<int64_t>::max())) add_new();
    owners.push_back(user), bounds.push_back(static_cast<int64_t>(indices.size()));
  }
  bool* marks;
  nb::object marked = array<bool>(newer.size(), marks);
  std::copy(newer.begin(), newer.end(), marks);
  const nb::object none = nb::none();
  return nb::make_tuple(array_of(owners), array_of(bounds), array_of(indices), weighted ? array_of(weights) : none,
                        timed ? array_of(moments) : none, marked);
}

}  // namespace

void bind_histories(nb::module_& m) {
  nb::class_<HeldRows>(m, "Rows").def(
      nb::init<std::optional<In<int64_t, 1>>, In<int64_t, 1>, In<int32_t, 1>, std::optional<In<float, 1>>, std::optional<In<int64_t, 1>>,
               std::optional<In<bool, 1>>>(),
      "users"_a.noconvert().none(), "indptr"_a.noconvert(), "indices"_a.noconvert(), "strengths"_a.noconvert() = nb::none(),
      "times"_a.noconvert() = nb::none(), "newer"_a.noconvert() = nb::none());
  nb::class_<HeldCodes>(m, "HistoryCodes")
      .def(nb::init<std::vector<In<uint8_t, 2>>, std::vector<Scale>, In<float, 2>>(), "packed"_a.noconvert(), "weight"_a.noconvert(),
           "codewords"_a.noconvert())
      .def("changed", &HeldCodes::changed, "places"_a, "packed"_a.noconvert(), "weight"_a.noconvert())
      .def("histogram", &HeldCodes::histogram, "indptr"_a.noconvert(), "indices"_a.noconvert(), "strengths"_a.noconvert(),
           "out"_a.noconvert())
      .def("queries", &HeldCodes::queries, "indptr"_a.noconvert(), "indices"_a.noconvert(), "strengths"_a.noconvert() = nb::none());
  m.def("columns", &columns, "segments"_a, "users"_a.noconvert().none());
  m.def("extended", &extended, "segments"_a, "users"_a.noconvert(), "items"_a.noconvert(), "strengths"_a.noconvert().none(),
        "times"_a.noconvert().none());
  m.def("who", &who, "segments"_a, "item"_a);
  m.def("strengths", &strengths, "segments"_a, "users"_a.noconvert(), "items"_a.noconvert());
  m.def("gather", &gather, "segments"_a, "users"_a.noconvert(), "count"_a);
  m.def("ascending", &ascending, "indptr"_a.noconvert(), "indices"_a.noconvert(), "n"_a);
}

}  // namespace hashlgn
