// The binding: arrays are checked here, once, and everything after works on plain memory without the interpreter lock.
#include "catalogue.hpp"

namespace hashlgn {

#if defined(__x86_64__)
extern const Lanes avx512, avx2;
#elif defined(__aarch64__)
extern const Lanes neon;
#endif
extern const Lanes portable;

std::vector<const Lanes*> available() {
  std::vector<const Lanes*> all;
#if defined(__x86_64__)
  const bool bits = __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  const bool wide = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
  if (bits && wide) all.push_back(&avx512);
  if (bits && __builtin_cpu_supports("avx2")) all.push_back(&avx2);
#elif defined(__aarch64__)
  all.push_back(&neon);
#endif
  all.push_back(&portable);
  return all;
}

namespace {

nb::tuple run(const std::vector<const HeldSegment*>& held, In<float, 3> tables, size_t items, size_t k, double threshold,
              std::optional<In<int64_t, 1>> indptr, std::optional<In<int64_t, 1>> seen, std::optional<In<bool, 1>> banned,
              std::optional<In<int32_t, 2>> probes, std::optional<std::vector<In<uint32_t, 1>>> chosen, int threads,
              const std::string& isa, bool timed) {
  const size_t queries = tables.shape(0);
  require(tables.shape(2) == 16, "tables must have shape (queries, sub-codes, 16)");
  require(threads >= 1, "threads must be positive");
  require(threshold == threshold, "threshold must be a number");
  require(items < 0xffffffffu, "items must be less than 2^32 - 1");
  require(k <= items, "k must be at most the number of items");
  require(!indptr == !seen, "indptr and seen must come together");
  require(!indptr || indptr->shape(0) == queries + 1, "indptr must have one row per query");
  if (indptr) require_bounds(*indptr, seen->shape(0));
  require(!banned || banned->shape(0) == items, "banned must have one value per item");
  require(!probes || probes->shape(0) == queries, "probes must have one row per query");
  const std::vector<Segment> segments = segments_of(held, chosen, tables.shape(1));
  Request request{};
  request.tables = tables.data(), request.queries = queries, request.subcodes = static_cast<int>(tables.shape(1));
  request.k = k, request.threshold = threshold;
  if (indptr) request.indptr = indptr->data(), request.seen = seen->data();
  if (banned) request.banned = reinterpret_cast<const uint8_t*>(banned->data());
  request.items = items;
  if (probes) request.probes = probes->data(), request.n_probes = probes->shape(1);
  request.threads = threads, request.lanes = lanes_named(isa), request.interrupted = interrupted;
  HitArrays hits(queries, queries * k);
  Answer answer;
  {
    const nb::gil_scoped_release released;
    answer = search(segments, request, timed);
  }
  if (PyErr_Occurred()) throw nb::python_error();
  hits.fill(answer);
  nb::dict profile;
  const Profile& p = answer.profile;
  profile["scanned"] = p.scanned, profile["rescored"] = p.rescored, profile["kept"] = p.kept;
  profile["quantize"] = p.quantize, profile["scan"] = p.scan, profile["rescore"] = p.rescore, profile["order"] = p.order;
  return nb::make_tuple(hits.bounds, hits.items.held, hits.scores.held, profile);
}

void pack(In<uint8_t, 2> codes, std::optional<In<uint32_t, 1>> order, Out<uint8_t, 3> rows) {
  const size_t count = order ? order->shape(0) : codes.shape(0), bytes = codes.shape(1);
  require(rows.shape(1) == 2 * bytes && rows.shape(2) == kRow && rows.shape(0) * kBlock >= count, "rows must fit the codes");
  for (size_t i = 0; order && i < count; ++i) require(order->data()[i] < codes.shape(0), "order must hold rows of codes");
  const nb::gil_scoped_release released;
  pack_blocks(codes.data(), bytes, order ? order->data() : nullptr, count, rows.data());
}

// Items by falling scale, those of one scale by number, into blocks: the row of each slot, what each slot has of a scale, and the slot of
// each row. Slots after the last item repeat it.
template <class T>
void arrange_by(In<uint8_t, 2> codes, const T* scale, Out<uint8_t, 3> rows, Out<uint32_t, 1> order, Out<uint32_t, 1> slots, T* held) {
  const size_t count = codes.shape(0);
  // A positive number's bits ascend with it.
  std::vector<uint64_t> keys(count);
  for (size_t i = 0; i < count; ++i) {
    std::make_unsigned_t<T> bits;
    std::memcpy(&bits, scale + i, sizeof(T));
    keys[i] = ~uint64_t{bits} << 32 | i;
  }
  std::sort(keys.begin(), keys.end());
  for (size_t slot = 0; slot < order.shape(0); ++slot) {
    const uint32_t item = static_cast<uint32_t>(keys[std::min(slot, count - 1)]);
    order.data()[slot] = item, held[slot] = scale[item];
    if (slot < count) slots.data()[item] = static_cast<uint32_t>(slot);
  }
  pack_blocks(codes.data(), codes.shape(1), order.data(), order.shape(0), rows.data());
}

void arrange(In<uint8_t, 2> codes, Scale scale, Out<uint8_t, 3> rows, Out<uint32_t, 1> order, Out<uint32_t, 1> slots,
             nb::ndarray<nb::ndim<1>, nb::c_contig, nb::device::cpu> held) {
  const size_t count = codes.shape(0);
  require(count && count < 0xffffffffu && scale.shape(0) == count && slots.shape(0) == count, "scale and slots must have one number per code");
  require(rows.shape(1) == 2 * codes.shape(1) && rows.shape(2) == kRow && rows.shape(0) * kBlock >= count, "rows must fit the codes");
  require(order.shape(0) == rows.shape(0) * kBlock && held.shape(0) == order.shape(0), "order and held must have one number per slot");
  require(held.dtype() == scale.dtype() && scale.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) &&
              (scale.itemsize() == 2 || scale.itemsize() == 4),
          "scale and held must be float16 or float32");
  const nb::gil_scoped_release released;
  if (scale.itemsize() == 2) {
    arrange_by(codes, static_cast<const uint16_t*>(scale.data()), rows, order, slots, static_cast<uint16_t*>(held.data()));
  } else {
    arrange_by(codes, static_cast<const uint32_t*>(scale.data()), rows, order, slots, static_cast<uint32_t*>(held.data()));
  }
}

// The slot of each item of a segment, -1 where it is not there: the items are `numbers`, ascending, or consecutive ones from `first` on.
nb::object find(std::optional<In<int64_t, 1>> numbers, int64_t first, In<uint32_t, 1> slots, std::optional<In<uint8_t, 1>> holes,
                In<int64_t, 1> items) {
  const size_t count = slots.shape(0);
  require(!numbers || numbers->shape(0) == count, "numbers must have one entry per slot");
  int64_t* data;
  nb::object found = array<int64_t>(items.shape(0), data);
  for (size_t i = 0; i < items.shape(0); ++i) {
    const int64_t item = items.data()[i];
    size_t place = static_cast<size_t>(item - first);  // of an item before the first, more than any count
    if (numbers) {
      const int64_t *begin = numbers->data(), *at = std::lower_bound(begin, begin + count, item);
      place = at != begin + count && *at == item ? static_cast<size_t>(at - begin) : count;
    }
    data[i] = -1;
    if (place >= count) continue;
    const uint32_t slot = slots.data()[place];
    require(!holes || slot / 8 < holes->shape(0), "holes must have one bit per slot");
    if (!holes || !(holes->data()[slot / 8] >> slot % 8 & 1)) data[i] = slot;
  }
  return found;
}

void unpack(In<uint8_t, 3> rows, In<uint32_t, 1> slots, Out<uint8_t, 2> codes) {
  require(rows.shape(1) == 2 * codes.shape(1) && rows.shape(2) == kRow, "rows must fit the codes");
  require(codes.shape(0) == slots.shape(0), "codes must have one row per slot");
  for (size_t i = 0; i < slots.shape(0); ++i) require(slots.data()[i] < rows.shape(0) * kBlock, "slots must lie inside the blocks");
  const nb::gil_scoped_release released;
  unpack_blocks(rows.data(), codes.shape(1), slots.data(), slots.shape(0), codes.data());
}

void require_product(const In<double, 2>& x, const In<float, 2>& y, const Out<double, 2>& out) {
  require(x.shape(1) == y.shape(0), "x and y must fit");
  require(out.shape(0) == x.shape(0) && out.shape(1) == y.shape(1), "out must have the shape of the product");
}

void product(In<double, 2> x, In<float, 2> y, Out<double, 2> out, const std::string& isa) {
  require_product(x, y, out);
  const Lanes* lanes = lanes_named(isa);
  const nb::gil_scoped_release released;
  lanes->product(x.data(), x.shape(0), x.shape(1), y.data(), y.shape(1), out.data());
}

void single(In<double, 2> x, In<float, 2> y, Out<double, 2> out, const std::string& isa) {
  require_product(x, y, out);
  const Lanes* lanes = lanes_named(isa);
  const size_t rows = x.shape(0), n = x.shape(1), width = y.shape(1);
  const nb::gil_scoped_release released;
  std::vector<float> narrowed(rows * n), sums(rows * width);
  std::vector<int> exponents(rows);
  for (size_t r = 0; r < rows; ++r) exponents[r] = narrow(x.data() + r * n, n, narrowed.data() + r * n);
  lanes->single(narrowed.data(), rows, n, y.data(), width, sums.data());
  for (size_t r = 0; r < rows; ++r) widen(sums.data() + r * width, width, exponents[r], out.data() + r * width);
}

void require_rows(const int64_t* numbers, size_t count, size_t rows) {
  for (size_t i = 0; i < count; ++i) {
    require(numbers[i] >= 0 && static_cast<size_t>(numbers[i]) < rows, "item numbers must lie inside the arrays");
  }
}

void chosen(In<double, 2> x, In<float, 2> y, In<int64_t, 2> items, Out<double, 2> out) {
  require(x.shape(1) == y.shape(1) && items.shape(0) == x.shape(0), "x, y and items must fit");
  require(out.shape(0) == items.shape(0) && out.shape(1) == items.shape(1), "out must have the shape of items");
  const nb::gil_scoped_release released;
  require_rows(items.data(), items.shape(0) * items.shape(1), y.shape(0));
  chosen_products(x.data(), x.shape(0), x.shape(1), y.data(), items.data(), items.shape(1), out.data());
}

void require_ragged(const In<int64_t, 1>& indptr, const In<int64_t, 1>& indices, const In<double, 1>& weights, size_t rows) {
  require_bounds(indptr, indices.shape(0));
  require(indptr.data()[0] == 0 && static_cast<size_t>(indptr.data()[indptr.shape(0) - 1]) == indices.shape(0),
          "indptr must begin with 0 and end with the number of indices");
  require(weights.shape(0) == indices.shape(0), "weights must have one number per index");
  require_rows(indices.data(), indices.shape(0), rows);
}

void sums(In<int64_t, 1> indptr, In<int64_t, 1> indices, In<double, 1> weights, In<float, 2> vectors, Out<double, 2> out) {
  require_ragged(indptr, indices, weights, vectors.shape(0));
  require(out.shape(0) + 1 == indptr.shape(0) && out.shape(1) == vectors.shape(1), "out must have one row per history");
  const nb::gil_scoped_release released;
  weighted_sums(indptr.data(), out.shape(0), indices.data(), weights.data(), vectors.data(), vectors.shape(1), out.data());
}

void histogram(In<int64_t, 1> indptr, In<int64_t, 1> indices, In<double, 1> weights, In<uint8_t, 2> packed, Out<double, 2> out) {
  require_ragged(indptr, indices, weights, packed.shape(0));
  require(out.shape(0) + 1 == indptr.shape(0) && out.shape(1) == 32 * packed.shape(1), "out must have one row per history");
  const nb::gil_scoped_release released;
  const size_t bytes = packed.shape(1);
  for (size_t r = 0; r < out.shape(0); ++r) {
    const size_t begin = static_cast<size_t>(indptr.data()[r]), end = static_cast<size_t>(indptr.data()[r + 1]);
    const auto weight = [&](size_t e) { return weights.data()[begin + e]; };
    const auto code = [&](size_t e) { return packed.data() + static_cast<size_t>(indices.data()[begin + e]) * bytes; };
    histogram_of(end - begin, weight, code, bytes, out.data() + r * 32 * bytes);
  }
}

bool unit(In<double, 2> v, Out<float, 2> out) {
  require(out.shape(0) == v.shape(0) && out.shape(1) == v.shape(1), "out must have the shape of v");
  const nb::gil_scoped_release released;
  return unit_rows(v.data(), v.shape(0), v.shape(1), out.data());
}

}  // namespace

NB_MODULE(kernel, m) {
  nb::set_leak_warnings(false);  // a service ends while threads still hold a catalogue; the memory goes with the process
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Lanes* lanes : available()) names.emplace_back(lanes->name);
    return names;
  });
  nb::class_<HeldSegment>(m, "Segment")
      .def(nb::init<In<uint8_t, 3>, In<uint32_t, 1>, In<uint32_t, 1>, uint32_t, std::optional<In<uint32_t, 1>>,
                    std::optional<Scale>, std::optional<In<float, 1>>, std::optional<In<float, 1>>, std::optional<In<uint8_t, 1>>>(),
           "rows"_a.noconvert(), "starts"_a.noconvert(), "counts"_a.noconvert(), "first"_a,
           "order"_a.noconvert() = nb::none(), "scale"_a.noconvert() = nb::none(), "largest"_a.noconvert() = nb::none(),
           "smallest"_a.noconvert() = nb::none(), "holes"_a.noconvert() = nb::none());
  m.def("search", &run, "segments"_a, "tables"_a.noconvert(), "items"_a, "k"_a, "threshold"_a, "indptr"_a.noconvert() = nb::none(),
        "seen"_a.noconvert() = nb::none(), "banned"_a.noconvert() = nb::none(), "probes"_a.noconvert() = nb::none(),
        "chosen"_a.noconvert() = nb::none(), "threads"_a = 1, "isa"_a = "auto", "timed"_a = false);
  m.def("pack", &pack, "codes"_a.noconvert(), "order"_a.noconvert(), "rows"_a.noconvert());
  m.def("arrange", &arrange, "codes"_a.noconvert(), "scale"_a.noconvert(), "rows"_a.noconvert(), "order"_a.noconvert(),
        "slots"_a.noconvert(), "held"_a.noconvert());
  m.def("find", &find, "numbers"_a.noconvert().none(), "first"_a, "slots"_a.noconvert(), "holes"_a.noconvert().none(), "items"_a.noconvert());
  m.def("unpack", &unpack, "rows"_a.noconvert(), "slots"_a.noconvert(), "codes"_a.noconvert());
  m.def("product", &product, "x"_a.noconvert(), "y"_a.noconvert(), "out"_a.noconvert(), "isa"_a = "auto");
  m.def("single", &single, "x"_a.noconvert(), "y"_a.noconvert(), "out"_a.noconvert(), "isa"_a = "auto");
  m.def("chosen", &chosen, "x"_a.noconvert(), "y"_a.noconvert(), "items"_a.noconvert(), "out"_a.noconvert());
  m.def("sums", &sums, "indptr"_a.noconvert(), "indices"_a.noconvert(), "weights"_a.noconvert(), "vectors"_a.noconvert(),
        "out"_a.noconvert());
  m.def("histogram", &histogram, "indptr"_a.noconvert(), "indices"_a.noconvert(), "weights"_a.noconvert(),
        "packed"_a.noconvert(), "out"_a.noconvert());
  bind_histories(m);
  bind_answers(m);
  bind_lookup(m);
  bind_placing(m);
  m.def("unit", &unit, "v"_a.noconvert(), "out"_a.noconvert());
}

}  // namespace hashlgn
